// Package diag knows places in configuration files and the problems found
// there. It imports nothing of ours, so that every other package may use it.
package diag

import "strconv"

// Pos is a place in a file. Lines and columns count from 1; zero means unknown.
type Pos struct {
	File string // as the user named it, or "preset:NAME" for an embedded list
	Line int
	Col  int
}

// String gives "file:line", the form that decisions and events show; the zero
// Pos gives "".
func (p Pos) String() string {
	if p.File == "" {
		return ""
	}
	if p.Line == 0 {
		return p.File
	}
	return p.File + ":" + strconv.Itoa(p.Line)
}
