package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// errFileChanged says that a file is not what was read.
var errFileChanged = errors.New("the file has changed meanwhile; try again")

// amendFile puts a text in place of the one that a file has, whole at once and
// with the file's mode; of a symbolic link, that of the file it leads to. It is
// an error if the file has another text by now.
func amendFile(path string, old, text []byte) error {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	info, err := os.Stat(real)
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	if now, err := os.ReadFile(real); err != nil || !bytes.Equal(now, old) {
		return fmt.Errorf("writing %s: %w", path, errors.Join(errFileChanged, err))
	}
	temporary, err := os.CreateTemp(filepath.Dir(real), ".sallyport-*.new")
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = temporary.Write(text)
	err = errors.Join(err, temporary.Chmod(info.Mode().Perm()), keepOwner(temporary, info), temporary.Sync(), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), real)
	}
	if err != nil {
		os.Remove(temporary.Name())
		return fmt.Errorf("writing %s: %w", path, err)
	}
	return nil
}

// keepOwner gives a file the owner that another has.
func keepOwner(file *os.File, like os.FileInfo) error {
	owner, ok := like.Sys().(*syscall.Stat_t)
	if !ok || int(owner.Uid) == os.Geteuid() && int(owner.Gid) == os.Getegid() {
		return nil
	}
	return file.Chown(int(owner.Uid), int(owner.Gid))
}
