package webui

import (
	"fmt"
	"html/template"
	"time"
)

// functions are what the templates call.
var functions = template.FuncMap{
	"clock":  func(t time.Time) string { return t.UTC().Format(time.TimeOnly) },
	"moment": func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05") },
	"iso":    func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"span":   spanText,
	"since":  func(now, t time.Time) string { return spanText(now.Sub(t)) },
	"count":  countText,
	"verdictMark": func(verdict string) string {
		return map[string]string{verdictRefused: "✕", verdictAllowed: "✓", verdictAudited: "!"}[verdict]
	},
	"filterForm": func(f filter, pools []string, action string) map[string]any {
		return map[string]any{"Filter": f, "Pools": pools, "Action": action}
	},
	"empty": func() row { return row{} },
}

// countText writes a number with its thousands apart.
func countText(n any) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
