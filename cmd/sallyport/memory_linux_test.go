package main

import (
	"slices"
	"testing"
)

// What was written to would come back as the file has it: data, and constants
// that were relocated.
func TestOnlyMappingsThatWereNeverWrittenAreReleased(t *testing.T) {
	t.Parallel()
	const maps = `00400000-00d85000 r-xp 00000000 fe:00 9996031                            /usr/bin/sallyport
Rss:                8336 kB
Anonymous:             0 kB
00d85000-017b7000 r--p 00985000 fe:00 9996031                            /usr/bin/sallyport
Anonymous:             0 kB
017b7000-0184f000 rw-p 013b7000 fe:00 9996031                            /usr/bin/sallyport
Anonymous:             0 kB
01850000-01860000 r--p 013b7000 fe:00 9996031                            /usr/bin/sallyport
Anonymous:             8 kB
7f5db9c0e000-7f5db9f00000 r--p 00000000 fe:00 77                         /srv/usr/bin/sallyport
Anonymous:             0 kB
7f5db9f00000-7f5db9f01000 r--p 00000000 00:00 0
Anonymous:             0 kB
`
	want := []mapping{{0x400000, 0xd85000}, {0xd85000, 0x17b7000}}
	if got := unwritten(maps, "/usr/bin/sallyport"); !slices.Equal(got, want) {
		t.Errorf("%x", got)
	}
}
