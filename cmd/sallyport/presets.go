package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"sallyport/allowlists/presets"
)

// newPresets shows the built-in lists.
func newPresets() *cobra.Command {
	return &cobra.Command{
		Use:     "presets [NAME]",
		Short:   "List the built-in allowlists, or print one",
		Example: "  sallyport presets\n  sallyport presets github-actions",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), strings.Join(presets.Names(), "\n"))
				return err
			}
			text, ok := presets.Get(args[0])
			if !ok {
				return &exitError{exitUsage, fmt.Errorf("no preset %q; \"sallyport presets\" lists them", args[0])}
			}
			_, err := cmd.OutOrStdout().Write(text)
			return err
		},
		ValidArgsFunction: func(_ *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
			return presets.Names(), cobra.ShellCompDirectiveNoFileComp
		},
	}
}
