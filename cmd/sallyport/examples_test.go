package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestExamplesFitTheCommands holds every command line of ours in --help and in
// the documents against the commands: each word, flag and value. None is run.
func TestExamplesFitTheCommands(t *testing.T) {
	lines := 0
	check := func(where, line string, whole bool) {
		for _, words := range commandsOf(line) {
			args, ours := oursOf(words)
			if !ours {
				continue
			}
			lines++
			if err := fits(args, whole); err != nil {
				t.Errorf("%s: %s\n%v", where, strings.TrimSpace(line), err)
			}
		}
	}
	walk(newRoot(), func(cmd *cobra.Command) {
		for line := range strings.Lines(cmd.Example) {
			check(cmd.CommandPath()+" --help", line, true)
		}
	})
	if lines < 40 {
		t.Errorf("only %d command lines are in --help", lines)
	}
	inHelp := lines
	documents, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range append(documents, "../../README.md", "../../CHANGELOG.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		blocks, inline := codeOf(string(text))
		for _, line := range blocks {
			check(path, line, true)
		}
		for _, line := range inline {
			check(path, line, false)
		}
	}
	if lines-inHelp < 80 {
		t.Errorf("only %d command lines are in the documents", lines-inHelp)
	}
}

// TestHelpNamesFlagsThatAre looks for a flag that the help of a command speaks
// of and that no command of ours has.
func TestHelpNamesFlagsThatAre(t *testing.T) {
	known := map[string]bool{"env-file": true} // of docker run
	walk(newRoot(), func(cmd *cobra.Command) { cmd.Flags().VisitAll(func(f *pflag.Flag) { known[f.Name] = true }) })
	named := regexp.MustCompile(`(?:^|[\s("])--([a-z][a-z-]*)`)
	walk(newRoot(), func(cmd *cobra.Command) {
		if cmd.HasParent() && cmd.Parent().Name() == "completion" {
			return // cobra's words
		}
		text := cmd.Short + "\n" + cmd.Long
		cmd.Flags().VisitAll(func(f *pflag.Flag) { text += "\n" + f.Usage })
		for _, m := range named.FindAllStringSubmatch(text, -1) {
			if !known[m[1]] {
				t.Errorf("%s --help speaks of --%s, which no command has", cmd.CommandPath(), m[1])
			}
		}
	})
}

// TestFitsRefuses: fits must be able to say no, and commandsOf to find what it
// should be said of.
func TestFitsRefuses(t *testing.T) {
	for line, want := range map[string]string{
		"sallyport chekc":                                   `unknown command "chekc"`,
		"sallyport firewall nope":                           `sallyport firewall has no "nope"`,
		"sallyport check --nope":                            "unknown flag: --nope",
		"sallyport check -c":                                "flag needs an argument",
		"sallyport check good.yaml":                         "takes no argument",
		"sallyport wait-ready --timeout 5":                  "--timeout",
		"sallyport presets npm pypi":                        "accepts at most 1 arg",
		"sallyport report --format xml events.jsonl":        "--format takes md, html or json",
		"sallyport report --since yesterday events.jsonl":   "yesterday",
		"x=1 sudo /usr/bin/sallyport check --nope":          "unknown flag",
		"cat x | sallyport replay --nope -":                 "unknown flag",
		"echo \"$(sallyport env --nope)\" 'sallyport nope'": "unknown flag",
		"source <(sallyport completion tcsh) # comment":     `sallyport completion has no "tcsh"`,
		"true && docker exec a /sallyport doctor --nope":    "unknown flag",
	} {
		found := false
		for _, words := range commandsOf(line) {
			if args, ours := oursOf(words); ours {
				found = true
				if err := fits(args, true); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s: %v, want %s", line, err, want)
				}
			}
		}
		if !found {
			t.Errorf("%s: no command of ours was found in %q", line, commandsOf(line))
		}
	}
	for _, line := range []string{
		"install sallyport nope", "echo 'sallyport nope' > sallyport", "sallyport check -c x 2>&1 >/dev/null # sallyport nope",
		"docker logs sallyport | sallyport explain --events - ID", "sallyport report --format json --since 6h x > y",
	} {
		for _, words := range commandsOf(line) {
			if args, ours := oursOf(words); ours && fits(args, true) != nil {
				t.Errorf("%s: %v", line, fits(args, true))
			}
		}
	}
}

// walk visits a command and all below it.
func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, visit)
	}
}

// fits parses a command line as cobra does before it runs one. Of a line that
// is not whole, as "`sallyport explain`" in a sentence, arguments may be missing.
func fits(args []string, whole bool) error {
	root := newRoot()
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	words := cmd.Flags().Args()
	if cmd.HasSubCommands() && !strings.Contains(cmd.Use, " ") && len(words) > 0 {
		return fmt.Errorf("%s has no %q", cmd.CommandPath(), words[0])
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if legal := wordsOf(f.Usage); err == nil && len(legal) > 1 && f.Value.Type() == "string" && !slices.Contains(legal, f.Value.String()) {
			err = fmt.Errorf("--%s takes %s, not %q", f.Name, f.Usage, f.Value)
		}
		if f.Name == "since" || f.Name == "until" {
			_, wrong := moment(f.Value.String(), time.Now())
			err = errors.Join(err, wrong)
		}
	})
	if err != nil || !whole {
		return err
	}
	return errors.Join(cmd.ValidateArgs(words), cmd.ValidateRequiredFlags(), cmd.ValidateFlagGroups())
}

// legalWords is the begin of a flag's usage that lists what it takes.
var legalWords = regexp.MustCompile(`^(?:[^:]*: )?((?:[a-z]+(?: \([^)]*\))?, )*[a-z]+,? or [a-z]+)\b`)

// wordsOf lists what a flag takes, by its usage; none if that does not say.
func wordsOf(usage string) []string {
	m := legalWords.FindStringSubmatch(usage)
	if m == nil {
		return nil
	}
	list := regexp.MustCompile(` \([^)]*\)`).ReplaceAllString(m[1], "")
	return strings.FieldsFunc(strings.ReplaceAll(list, " or ", ","), func(r rune) bool { return r == ',' || r == ' ' })
}

// oursOf gives the arguments of a command if it is one of ours: sallyport
// itself, or a path to it behind the name of a container.
func oursOf(words []string) (args []string, ours bool) {
	assignment := regexp.MustCompile(`^[A-Za-z_]+=`)
	for len(words) > 0 && (words[0] == "sudo" || words[0] == "exec" || words[0] == "run:" || words[0] == "-" || assignment.MatchString(words[0])) {
		words = words[1:]
	}
	for i, w := range words {
		if strings.HasPrefix(w, "/") && strings.HasSuffix(w, "/sallyport") || w == "sallyport" && (i == 0 || words[i-1] == "sudo") {
			return words[i+1:], true
		}
	}
	return nil, false
}

// codeOf takes the code out of a document: the lines of its blocks, joined where
// one goes on, and what stands between backquotes in its sentences.
func codeOf(text string) (blocks, inline []string) {
	quoted := regexp.MustCompile("`([^`\n]+)`")
	// nft's tables and words of the event log, not commands.
	others := []string{"sallyport dns", "sallyport passed", "sallyport refused"}
	fenced, transcript, more := false, false, false
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		switch {
		case strings.HasPrefix(strings.TrimSpace(line), "```"):
			fenced, transcript = !fenced, strings.HasSuffix(line, "```console")
		case transcript && !more && !strings.HasPrefix(line, "$ "): // output
		case fenced || strings.HasPrefix(line, "    "):
			line, _ = strings.CutPrefix(strings.TrimSpace(line), "$ ")
			line, _, _ = strings.Cut(line, "    ") // a column of remarks
			if more {
				blocks[len(blocks)-1] += line
			} else {
				blocks = append(blocks, line)
			}
			if more = strings.HasSuffix(line, `\`); more {
				blocks[len(blocks)-1] = strings.TrimSuffix(blocks[len(blocks)-1], `\`)
			}
		default:
			for _, m := range quoted.FindAllStringSubmatch(line, -1) {
				if !slices.Contains(others, m[1]) {
					inline = append(inline, m[1])
				}
			}
		}
	}
	return blocks, inline
}

// commandsOf splits a line of shell into its commands and their words, those in
// $( ) and <( ) too. It knows what our examples use, which is not all of shell.
func commandsOf(line string) [][]string {
	var all [][]string
	var words []string
	var word strings.Builder
	begun := false // whether word counts, though it may be empty
	endWord := func() {
		if begun {
			words = append(words, word.String())
		}
		word.Reset()
		begun = false
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			all = append(all, words)
		}
		words = nil
	}
	var quote byte
	for i := 0; i < len(line); i++ {
		c := line[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(line):
			i++
			word.WriteByte(line[i])
			begun = true
		case quote != '\'' && (c == '$' || c == '<') && i+1 < len(line) && line[i+1] == '(':
			inner := inParentheses(line[i+1:])
			all = append(all, commandsOf(inner)...)
			word.WriteByte('x') // what it stands for
			begun = true
			i += len(inner) + 2
		case c == quote:
			quote = 0
		case quote != 0:
			word.WriteByte(c)
		case c == '\'' || c == '"':
			quote, begun = c, true
		case c == '#' && !begun:
			endCommand()
			return all
		case c == '|' || c == ';' || c == '(' || c == ')' || c == '&' && !strings.HasSuffix(line[:i], ">"):
			endCommand()
		case c == '>' || c == '<':
			if text := word.String(); text == "1" || text == "2" {
				word.Reset()
				begun = false
			}
			endWord()
			i += len(line[i:]) - len(strings.TrimLeft(line[i:], "<>& ")) - 1
			i += len(strings.FieldsFunc(line[i+1:]+" ", func(r rune) bool { return strings.ContainsRune(" ;|)", r) })[0])
		case c == ' ' || c == '\t' || c == '\n':
			endWord()
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	endCommand()
	return all
}

// inParentheses gives what stands between the first "(" and its ")".
func inParentheses(text string) string {
	depth := 0
	for i, c := range text {
		switch c {
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return text[1:i]
			}
		}
	}
	return text[1:]
}
