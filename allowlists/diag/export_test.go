package diag

// ParseRuns is Parse where so many lines are no run yet.
func ParseRuns(file string, text []byte, report *Report, few int) *Node {
	p := parser{file: file, text: text, report: report, few: few}
	return p.parse()
}
