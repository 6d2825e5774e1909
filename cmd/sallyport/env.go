package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// newEnv prints the variables that make a job's programs use the proxy. Both
// cases are set, as clients disagree about which they read.
func newEnv() *cobra.Command {
	var format, proxy string
	var noProxy []string
	cmd := &cobra.Command{
		Use:   "env",
		Short: "Print the proxy variables for a job",
		Long: `Print the proxy variables for a job, in both cases, in the form that its CI
system reads. Formats: sh, github (append to $GITHUB_ENV), docker (--env-file),
gitlab (variables:), json.`,
		Example: "  eval \"$(sallyport env)\"\n  sallyport env --format github >> \"$GITHUB_ENV\"\n  docker run --env-file <(sallyport env --format docker --proxy http://sallyport:3128) ...",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write, ok := envFormats[format]
			if !ok {
				return &exitError{exitUsage, fmt.Errorf("--format %s: formats are sh, github, docker, gitlab and json", format)}
			}
			seen, err := proxyURL(proxy)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			return write(cmd.OutOrStdout(), proxyVariables(seen, noProxy))
		},
	}
	cmd.Flags().StringVar(&format, "format", "sh", "sh, github, docker, gitlab or json")
	cmd.Flags().StringVar(&proxy, "proxy", "http://127.0.0.1:3128", "the proxy as the job sees it")
	cmd.Flags().StringSliceVar(&noProxy, "no-proxy", []string{"localhost", "127.0.0.1", "::1"}, "what the job reaches without the proxy")
	return cmd
}

// proxyURL adds the scheme to a bare host:port. Without a port clients would
// not agree which one is meant.
func proxyURL(text string) (string, error) {
	full := text
	if !strings.Contains(text, "://") {
		full = "http://" + text
	}
	u, err := url.Parse(full)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Port() == "" {
		return "", fmt.Errorf("--proxy %q: write http://HOST:PORT, such as http://sallyport:3128", printable(text))
	}
	return full, nil
}

// An envVar is one variable of a job's environment.
type envVar struct{ name, value string }

func proxyVariables(proxy string, noProxy []string) []envVar {
	var vars []envVar
	for _, v := range []envVar{
		{"HTTP_PROXY", proxy}, {"HTTPS_PROXY", proxy}, {"ALL_PROXY", proxy}, {"NO_PROXY", strings.Join(noProxy, ",")},
	} {
		vars = append(vars, v, envVar{strings.ToLower(v.name), v.value})
	}
	return vars
}

var envFormats = map[string]func(io.Writer, []envVar) error{
	"sh":     writeVars("export %s=%s\n", shellQuote),
	"github": writeVars("%s=%s\n", plain),
	"docker": writeVars("%s=%s\n", plain),
	"gitlab": writeGitLab,
	"json":   writeEnvJSON,
}

func writeVars(line string, quote func(string) string) func(io.Writer, []envVar) error {
	return func(w io.Writer, vars []envVar) error {
		for _, v := range vars {
			if _, err := fmt.Fprintf(w, line, v.name, quote(v.value)); err != nil {
				return err
			}
		}
		return nil
	}
}

func writeGitLab(w io.Writer, vars []envVar) error {
	if _, err := io.WriteString(w, "variables:\n"); err != nil {
		return err
	}
	return writeVars("  %s: %s\n", yamlQuote)(w, vars)
}

func writeEnvJSON(w io.Writer, vars []envVar) error {
	set := make(map[string]string, len(vars))
	for _, v := range vars {
		set[v.name] = v.value
	}
	return printJSON(w, set)
}

// yamlQuote makes a double-quoted scalar: JSON strings are such.
func yamlQuote(s string) string {
	text, err := json.Marshal(s)
	if err != nil {
		panic("env: a string has no JSON form: " + err.Error()) // every string has one
	}
	return string(text)
}

func plain(s string) string { return strings.NewReplacer("\n", "", "\r", "").Replace(s) }

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
