package alerting

import (
	"bufio"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// inspect looks whether the file is still at its path, of its size and, now and
// then, as it was written. If not, it is written anew by this commit.
func (s *fileStore) inspect() {
	if s.file == nil {
		return
	}
	own, err := s.file.Stat()
	there, lost := os.Lstat(s.path)
	switch {
	case errors.Is(lost, fs.ErrNotExist):
		s.found = append(s.found, storeFault{state: stateMissing, cause: "the file was deleted", records: s.count()})
	case lost != nil:
		s.found = append(s.found, storeFault{state: stateMissing, cause: "the file is out of reach: " + withoutPath(lost).Error(), records: s.count()})
	case err == nil && !os.SameFile(own, there):
		s.setAside(storeFault{state: stateReplaced, cause: "the file was replaced by another"})
	case err == nil && own.Size() != s.size:
		s.setAside(storeFault{state: stateDamaged, cause: fmt.Sprintf("the file has %d bytes, and %d were written", own.Size(), s.size)})
	case !s.verify():
		s.setAside(storeFault{state: stateDamaged, cause: "the file has not what was written to it"})
	default:
		return
	}
	s.file.Close()
	s.file, s.behind = nil, true
}

// verify reads the file, at most every verifyEvery, and reports whether it has
// what was written. A file that cannot be read has not.
func (s *fileStore) verify() bool {
	if time.Since(s.verified) < verifyEvery {
		return true
	}
	s.verified = time.Now()
	sum := crc32.New(castagnoli)
	n, err := io.Copy(sum, io.NewSectionReader(s.file, 0, s.size))
	return err == nil && n == s.size && sum.Sum32() == s.sum
}

// setAside gives what is at the path another name, as evidence, and notes the
// fault. The last storeAsides are kept.
func (s *fileStore) setAside(fault storeFault) {
	fault.records = s.count()
	prefix := s.path + ".corrupt-"
	name := prefix + time.Now().UTC().Format("20060102T150405.000Z")
	if os.Rename(s.path, name) == nil {
		fault.aside = filepath.Base(name)
	}
	s.found = append(s.found, fault)
	old, _ := filepath.Glob(prefix + "*")
	slices.Sort(old)
	for _, path := range old[:max(0, len(old)-storeAsides)] {
		os.Remove(path)
	}
}

// count is how many records there are.
func (s *fileStore) count() (n int) {
	for _, records := range s.records {
		n += len(records)
	}
	return n
}

// rewrite writes a new file with all records and changes, and puts it in the
// old one's place. If it fails everything is as it was.
func (s *fileStore) rewrite(changes []Change) error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	if err := s.hold(0); err != nil {
		return err
	}
	temporary := s.path + ".new"
	os.Remove(temporary) // of a crash
	file, err := os.OpenFile(temporary, os.O_RDWR|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return err
	}
	size, sum, err := s.writeAll(file, changes)
	if err == nil {
		err = os.Rename(temporary, s.path)
	}
	if err != nil {
		file.Close()
		os.Remove(temporary)
		return err
	}
	syncDir(s.dir)
	if s.file != nil {
		s.file.Close()
	}
	for _, c := range changes {
		s.put(cloned(c))
	}
	s.file, s.size, s.sum, s.live, s.behind, s.verified = file, size, sum, size, false, time.Now()
	return nil
}

// writeAll writes every record as it is after changes, and syncs.
func (s *fileStore) writeAll(file *os.File, changes []Change) (size int64, sum uint32, err error) {
	out := bufio.NewWriterSize(file, 64<<10)
	add := func(text []byte) {
		size += int64(len(text))
		sum = crc32.Update(sum, castagnoli, text)
		_, _ = out.Write(text) // Flush gives the error
	}
	add(appendStoreLine(nil, []byte(storeHeader)))
	for kind, records := range s.records {
		for key, value := range records {
			text, err := encodeCommit([]Change{{Kind: kind, Key: key, Value: value}})
			if err != nil {
				return 0, 0, err
			}
			add(text)
		}
	}
	text, err := encodeCommit(changes)
	if err != nil {
		return 0, 0, err
	}
	add(text)
	if err := out.Flush(); err != nil {
		return 0, 0, err
	}
	return size, sum, file.Sync()
}

// syncDir makes a rename in a directory last, where its file system can.
func syncDir(dir string) {
	if d, err := os.Open(dir); err == nil {
		_ = d.Sync()
		d.Close()
	}
}

// hold takes the lock of the directory, unless it is held: that of the file
// there now, as somebody may have deleted the one that was locked. Where none
// can be made the directory itself is locked for the time being, and without one
// there is nothing to hold yet. It waits that long for another process.
func (s *fileStore) hold(wait time.Duration) error {
	path := filepath.Join(s.dir, "alerts.lock")
	if s.lock != nil {
		own, err := s.lock.Stat()
		there, lost := os.Stat(path)
		if err == nil && (lost == nil && os.SameFile(own, there)) {
			return nil
		}
		s.lock.Close()
		s.lock = nil
	}
	lock, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil && diskFault(err) {
		if lock, err = os.Open(s.dir); errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("locking %s: %w", path, withoutPath(err))
	}
	if err := flock(lock, wait); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return fmt.Errorf("opening %s: another process holds it; each daemon needs an alerts.state_dir of its own", s.path)
		}
		return fmt.Errorf("locking %s: %w", path, err)
	}
	s.lock = lock
	return nil
}

// flock locks a file for this process alone, if need be after a wait.
func flock(file *os.File, wait time.Duration) error {
	deadline := time.Now().Add(wait)
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil || !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(deadline) {
			return err
		}
		timer := time.NewTimer(50 * time.Millisecond)
		<-timer.C
	}
}
