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
gitlab (variables:), java (JAVA_TOOL_OPTIONS, as Java reads none of the others),
buildkit (arguments of docker build, which no image keeps), json.`,
		Example: "  eval \"$(sallyport env)\"\n  sallyport env --format github >> \"$GITHUB_ENV\"\n  docker run --env-file <(sallyport env --format docker --proxy http://sallyport:3128) ...\n  docker build $(sallyport env --format buildkit --proxy http://sallyport:3128) .",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			write, ok := envFormats[format]
			if !ok {
				return &exitError{exitUsage, fmt.Errorf("--format %s: formats are sh, github, docker, gitlab, java, buildkit and json", printable(format))}
			}
			seen, err := proxyURL(proxy)
			if err != nil {
				return &exitError{exitUsage, err}
			}
			return write(cmd.OutOrStdout(), proxyVariables(seen, noProxy))
		},
	}
	cmd.Flags().StringVar(&format, "format", "sh", "sh, github, docker, gitlab, java, buildkit or json")
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
	"sh":       writeVars("export %s=%s\n", shellQuote),
	"github":   writeVars("%s=%s\n", plain),
	"docker":   writeVars("%s=%s\n", plain),
	"gitlab":   writeGitLab,
	"java":     writeJava,
	"buildkit": writeBuildKit,
	"json":     writeEnvJSON,
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

// writeJava sets the system properties of Java's networking documentation, by
// the variable that every JVM reads. Java speaks no TLS to a proxy.
func writeJava(w io.Writer, vars []envVar) error {
	set := valuesOf(vars)
	proxy, err := url.Parse(set["HTTP_PROXY"])
	if err != nil || proxy.Scheme != "http" {
		return &exitError{exitUsage, fmt.Errorf("--proxy %s: Java takes a proxy by http:// only", printable(set["HTTP_PROXY"]))}
	}
	host := strings.Trim(proxy.Host[:len(proxy.Host)-len(proxy.Port())-1], "[]")
	var options []string
	for _, scheme := range []string{"http", "https"} {
		options = append(options, fmt.Sprintf("-D%s.proxyHost=%s -D%s.proxyPort=%s", scheme, host, scheme, proxy.Port()))
	}
	if direct := set["NO_PROXY"]; direct != "" {
		options = append(options, "-Dhttp.nonProxyHosts="+strings.ReplaceAll(direct, ",", "|"))
	}
	return writeVars("export %s=%s\n", shellQuote)(w, []envVar{{"JAVA_TOOL_OPTIONS", strings.Join(options, " ")}})
}

// writeBuildKit writes the build arguments that BuildKit predefines, on one line
// for a command line. It keeps them out of the image and its cache key.
func writeBuildKit(w io.Writer, vars []envVar) error {
	var args []string
	for _, v := range vars {
		if strings.ContainsAny(v.value, " \t\n*?[]'\"\\$`") {
			return &exitError{exitUsage, fmt.Errorf("%s: a shell would take %s apart; name it without such characters", strings.ToLower(v.name), printable(v.value))}
		}
		args = append(args, "--build-arg "+v.name+"="+v.value)
	}
	_, err := fmt.Fprintln(w, strings.Join(args, " "))
	return err
}

func writeEnvJSON(w io.Writer, vars []envVar) error {
	return printJSON(w, valuesOf(vars))
}

func valuesOf(vars []envVar) map[string]string {
	set := make(map[string]string, len(vars))
	for _, v := range vars {
		set[v.name] = v.value
	}
	return set
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
