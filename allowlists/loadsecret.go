package allowlists

import (
	"errors"
	"io/fs"
	"net/url"
	"regexp"
	"strings"

	"sallyport/allowlists/diag"
)

// The kinds of secrets. No message repeats their values.
var secretKind, secretURLKind, secretFileKind *kind

func init() {
	secretKind = &kind{"a secret", parseText}
	secretURLKind = &kind{"an http or https URL; a secret", parseSecretURL}
	secretFileKind = &kind{"a path", parsePath}
}

func parseSecretURL(l *loader, k *key, n *diag.Node) (any, bool) {
	text, ok := l.scalar(k, n)
	if !ok {
		return nil, false
	}
	return text, l.checkSecretURL(k.label(), text, n.Place)
}

// checkSecretURL holds a webhook's URL against what can be posted to.
func (l *loader) checkSecretURL(label, text string, at diag.Place) bool {
	if text == "" {
		return true
	}
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" {
		l.report.Errorf(at, "%s is no URL to post to; it begins with https:// and a host", label)
		return false
	}
	return true
}

// defaultWebhook is the variable that the default of alerts.slack.webhook_url names.
const defaultWebhook = "SLACK_WEBHOOK_URL"

// secretPair gives the secret of a key and its _file form, of which at most
// one may be set; the file form is read here.
func (l *loader) secretPair(v values, path string) string {
	direct, file := v[path], v[path+"_file"]
	name := l.schema.byPath[path].label()
	text, _ := direct.value.(string)
	filePath, _ := file.value.(string)
	if filePath == "" {
		return text
	}
	if text != "" {
		l.report.Errorf(file.at(), "%s and %s_file are both given; keep one of them", name, name)
		return ""
	}
	raw, err := l.readFile(filePath)
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err // without the path, which may be the secret itself
		}
		l.report.Errorf(file.at(), "%s_file cannot be read (%s); name a file that this user may read", name, err)
		return ""
	}
	text = strings.TrimRight(string(raw), "\r\n")
	switch {
	case text == "":
		l.report.Errorf(file.at(), "%s_file names an empty file; put the secret there", name)
	case strings.ContainsAny(text, "\x00\r\n"):
		l.report.Errorf(file.at(), "%s_file names a file with more than one line; put the secret there alone", name)
	case l.schema.byPath[path].kind == secretURLKind && !l.checkSecretURL("the text in "+name+"_file", text, file.at()):
	default:
		return text
	}
	return ""
}

// slackWebhook is secretPair for alerts.slack.webhook_url, whose default is
// the environment's, and off where that is unset.
func (l *loader) slackWebhook(v values) string {
	const path = "alerts.slack.webhook_url"
	if text := l.secretPair(v, path); text != "" || v.given(path) || get[string](v, path+"_file") != "" {
		return text
	}
	if l.env == nil {
		return ""
	}
	text, _ := l.env(defaultWebhook)
	if !l.checkSecretURL("the environment variable "+defaultWebhook, text, diag.Place{}) {
		return ""
	}
	return text
}

// secretWord finds keys that hold a secret or were meant to, so that a
// misspelt one is hidden too.
var secretWord = regexp.MustCompile(`(?i)hook|url|hmac|secret|token|passw|key`)

// hideSecrets keeps lines that hold a secret out of the snippets: every value
// under a key that sounds like one, and every text below alerts that is a URL.
func (l *loader) hideSecrets(root *diag.Node) {
	h := hider{report: l.report, keys: make(map[string]keySense)}
	h.below(root, false)
}

// A hider looks for secrets in a tree.
type hider struct {
	report *diag.Report
	keys   map[string]keySense // what keys seen so far sound like; at most as many as the file has
}

// A keySense is what a key sounds like.
type keySense struct{ secret, alerts bool }

// below hides secrets below n; alerts is set below alerts and its sinks.
func (h *hider) below(n *diag.Node, alerts bool) {
	for _, item := range n.Items {
		h.below(item, alerts)
	}
	for _, e := range n.Entries {
		sense, known := h.keys[e.Key]
		if !known {
			sense.secret = secretWord.MatchString(e.Key) && !strings.HasSuffix(e.Key, "_file")
			sense.alerts = nearly(e.Key, "alerts") || nearly(e.Key, "slack") || nearly(e.Key, "webhook") || nearly(e.Key, "alertmanager")
			h.keys[e.Key] = sense
		}
		v := e.Value
		if section := e.Key == "webhook" && v.Kind == diag.Map; sense.secret && !section {
			h.report.Hide(v.Pos.File, v.Pos.Line, v.LastLine)
		}
		h.below(v, alerts || sense.alerts)
	}
	if alerts && strings.Contains(n.Text, "://") {
		h.report.Hide(n.Pos.File, n.Pos.Line, n.LastLine)
	}
}

// nearly reports whether a key is a word or a misspelling of it.
func nearly(key, word string) bool { return diag.Nearest(key, []string{word}) != "" }

// variable finds ${NAME}, the escaped $$, and a $ that is neither.
var variable = regexp.MustCompile(`\$(?:\$|\{([^}]*)\}?)?`)

// variableName is what a variable of the environment may be called.
var variableName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// variable looks a name up in the environment.
func (l *loader) variable(name string) (text string, set bool) {
	if l.env == nil {
		return "", false
	}
	return l.env(name)
}

// expand replaces ${NAME} in every value below n. It never looks at keys, and
// what a variable holds is not looked at again.
func (l *loader) expand(n *diag.Node) {
	l.pause()
	for _, item := range n.Items {
		l.expand(item)
	}
	for _, e := range n.Entries {
		l.expand(e.Value)
	}
	if n.Kind != diag.Text || !strings.Contains(n.Text, "$") {
		return
	}
	var out strings.Builder
	end := 0
	for _, m := range variable.FindAllStringSubmatchIndex(n.Text, -1) {
		out.WriteString(n.Text[end:m[0]])
		end = m[1]
		whole := n.Text[m[0]:m[1]]
		if whole == "$$" {
			out.WriteByte('$')
			continue
		}
		name := strings.TrimSuffix(strings.TrimPrefix(whole, "${"), "}")
		if !strings.HasPrefix(whole, "${") || !strings.HasSuffix(whole, "}") || !variableName.MatchString(name) {
			l.report.Errorf(n.At(m[0]), "a $ stands alone or before no name; write ${NAME} for a variable, $$ for a dollar")
			n.Kind = diag.Bad
			continue
		}
		text, set := l.variable(name)
		if !set {
			l.report.Errorf(n.At(m[0]), "the environment variable %s is not set; set it, or write $${%s} for that text itself", name, name)
			n.Kind = diag.Bad
			continue
		}
		out.WriteString(text)
	}
	n.Text, n.Expanded = out.String()+n.Text[end:], true
}
