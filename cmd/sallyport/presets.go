package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/allowlists/diag"
	"sallyport/allowlists/presets"
)

// newPresets shows the built-in lists.
func newPresets() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:     "presets [NAME]",
		Short:   "List the built-in allowlists, or print one",
		Example: "  sallyport presets\n  sallyport presets github-actions\n  sallyport presets --format json",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case format != "text" && format != "json":
				return unknownFormat(format)
			case format == "json":
				return printPresetsJSON(cmd.OutOrStdout(), args)
			case len(args) == 0:
				_, err := fmt.Fprintln(cmd.OutOrStdout(), strings.Join(presets.Names(), "\n"))
				return err
			}
			text, ok := presets.Get(args[0])
			if !ok {
				return noPreset(args[0])
			}
			_, err := cmd.OutOrStdout().Write(text)
			return err
		},
		ValidArgsFunction: func(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return presets.Names(), cobra.ShellCompDirectiveNoFileComp
		},
	}
	cmd.AddCommand(newPresetsVerify())
	cmd.Flags().StringVar(&format, "format", "text", "text or json: the names, or the text of the one that is named")
	return cmd
}

func noPreset(name string) error {
	mend := "\"sallyport presets\" lists them"
	if near := diag.Nearest(name, presets.Names()); near != "" {
		mend = fmt.Sprintf("did you mean %q?", near)
	}
	return &exitError{exitUsage, fmt.Errorf("no preset %q; %s", name, mend)}
}

// printPresetsJSON writes the names of all presets, or name and text of one.
func printPresetsJSON(w io.Writer, args []string) error {
	if len(args) == 0 {
		return printJSON(w, presets.Names())
	}
	text, ok := presets.Get(args[0])
	if !ok {
		return noPreset(args[0])
	}
	return printJSON(w, map[string]string{"name": args[0], "text": string(text)})
}
