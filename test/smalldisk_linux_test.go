package test

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A smallDisk is a disk of its own over a directory, until the test ends.
type smallDisk struct {
	t         *testing.T
	dir, size string
}

// newSmallDisk mounts a disk of a size, such as 256k, over a directory.
func newSmallDisk(t *testing.T, dir, size string) *smallDisk {
	t.Helper()
	d := &smallDisk{t: t, dir: dir, size: size}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755,size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	return d
}

// filler is the file that takes what room there is.
func (d *smallDisk) filler() string { return filepath.Join(d.dir, "filler") }

// fill writes until nothing more fits.
func (d *smallDisk) fill() {
	d.t.Helper()
	out, err := os.Create(d.filler())
	if err != nil {
		d.t.Fatal(err)
	}
	for err == nil {
		_, err = out.Write(make([]byte, 4096))
	}
	if err := out.Close(); err != nil {
		d.t.Fatal(err)
	}
}

// free gives back what fill took.
func (d *smallDisk) free() {
	d.t.Helper()
	if err := os.Remove(d.filler()); err != nil {
		d.t.Fatal(err)
	}
}

// readOnly forbids writing, or allows it again. A file that is open for writing
// keeps the kernel from it.
func (d *smallDisk) readOnly(is bool) {
	d.t.Helper()
	flags := uintptr(unix.MS_REMOUNT)
	if is {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("", d.dir, "", flags, "size="+d.size); err != nil {
		d.t.Fatal(err)
	}
}
