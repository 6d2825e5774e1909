package alerting

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// stateFile is the name of the store's file under state_dir.
const stateFile = "alerts.jsonl"

// The times and bounds of a fileStore.
const (
	storeLockWait = 2 * time.Second // how long OpenStore waits for another process to let go
	storeSlack    = 4 << 20         // bytes that the file may have beyond twice what is live
	verifyEvery   = time.Minute     // how often the file is held against what was written to it
	storeAsides   = 3               // damaged files that are kept beside it
)

// A fileStore is a Store in one file, which one process may hold at a time. The
// file is a journal of checked lines (storelines.go): commits are appended and
// synced, and when half of it is stale it is written anew beside the old one.
//
// Whatever becomes of the file, nothing is lost while the process lives: all
// records are in memory, too, as bounded as alerting keeps them. A file that is
// deleted, replaced or damaged under it is noticed within verifyEvery, set aside
// and written again. One goroutine calls at a time.
type fileStore struct {
	dir, path string
	records   map[string]map[string][]byte // by kind and key: what was committed
	lock      *os.File                     // nil: not held yet
	file      *os.File                     // nil: there is none
	size      int64                        // bytes of file that are whole commits
	sum       uint32                       // crc32c of them
	live      int64                        // bytes that a file written anew had
	behind    bool                         // only a file written anew has everything
	verified  time.Time
	found     []storeFault // not told yet
}

// A storeFault is what was found wrong with a store besides a write that failed.
type storeFault struct {
	state   string // a word of sallyport_state_faults_total
	cause   string
	aside   string // name that the file has now; "" if it was not kept
	bad     int    // lines that could not be read
	records int    // that are kept
}

// The faults of a store.
const (
	stateWrite    = "failing"  // it cannot be written
	stateMissing  = "missing"  // its file was deleted
	stateReplaced = "replaced" // its file is another one
	stateDamaged  = "damaged"  // its file has not what was written
	stateWell     = "recovered"
)

// OpenStore opens or creates the store in a directory, which is created if it
// is missing (0700). The file is readable for its owner only. If another process
// holds it the error says so, after storeLockWait. A damaged file is set aside,
// and what can be read of it is used. Where the disk is full, broken or
// read-only the store is opened all the same, and the next Commit tells.
func OpenStore(dir string) (Store, error) {
	s := &fileStore{dir: dir, path: filepath.Join(dir, stateFile), records: make(map[string]map[string][]byte), behind: true}
	if err := os.MkdirAll(dir, 0o700); err != nil && !diskFault(err) {
		return nil, fmt.Errorf("making alerts.state_dir %s: %w", dir, withoutPath(err))
	}
	if err := s.hold(storeLockWait); err != nil {
		return nil, err
	}
	if err := s.read(); err != nil {
		s.Close()
		return nil, fmt.Errorf("opening %s: %w", s.path, withoutPath(err))
	}
	if err := s.rewrite(nil); err != nil && !diskFault(err) {
		s.Close()
		return nil, fmt.Errorf("opening %s: %w", s.path, withoutPath(err))
	}
	return s, nil
}

// diskFault reports whether an error is one of the disk rather than of what
// somebody configured: one that may pass, and is no reason not to serve.
func diskFault(err error) bool {
	for _, fault := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS, syscall.EIO, syscall.EMFILE, syscall.ENFILE} {
		if errors.Is(err, fault) {
			return true
		}
	}
	return false
}

// read takes up what the file has. Its error is one that a person must mend.
func (s *fileStore) read() error {
	// Not through a link, and not waiting for the writer of a pipe.
	file, err := os.OpenFile(s.path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), err != nil && diskFault(err):
		return nil
	case errors.Is(err, syscall.ELOOP):
		s.setAside(storeFault{state: stateDamaged, cause: "it is a link"})
		return nil
	case err != nil:
		return err
	}
	defer file.Close()
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		s.setAside(storeFault{state: stateDamaged, cause: "it is no file"})
		return nil
	}
	lines, err := readStore(file, s.put)
	if errors.Is(err, errLaterStore) {
		return err
	}
	switch {
	case err != nil:
		s.setAside(storeFault{state: stateDamaged, cause: err.Error(), bad: lines.bad})
	case lines.bad > 0:
		s.setAside(storeFault{state: stateDamaged, cause: "lines of it are not as they were written", bad: lines.bad})
	}
	return nil
}

// put changes one record in memory.
func (s *fileStore) put(c Change) {
	if c.Value == nil {
		delete(s.records[c.Kind], c.Key)
		return
	}
	if s.records[c.Kind] == nil {
		s.records[c.Kind] = make(map[string][]byte)
	}
	s.records[c.Kind][c.Key] = c.Value
}

// Load is Store's.
func (s *fileStore) Load(kind string, visit func(string, []byte) error) error {
	for key, value := range s.records[kind] {
		if err := visit(key, value); err != nil {
			return err
		}
	}
	return nil
}

// Commit is Store's: on disk when it returns. Before, it looks whether what was
// committed earlier is still there.
func (s *fileStore) Commit(changes []Change) error {
	s.inspect()
	text, err := encodeCommit(changes)
	if err != nil {
		return fmt.Errorf("writing %s: %w", stateFile, err)
	}
	if s.behind || s.size+int64(len(text)) > 2*s.live+storeSlack {
		switch err := s.rewrite(changes); {
		case err == nil:
			return nil
		case s.behind:
			return fmt.Errorf("writing %s: %w", stateFile, withoutPath(err))
		}
		s.live = s.size // the old file goes on; not tried again at once
	}
	if len(changes) == 0 {
		return nil
	}
	if err := s.append(text); err != nil {
		return fmt.Errorf("writing %s: %w", stateFile, withoutPath(err))
	}
	for _, c := range changes {
		s.put(cloned(c))
	}
	return nil
}

// append writes a commit behind the others. Of one that fails nothing stays: it
// lies behind what counts, and the next one overwrites it.
func (s *fileStore) append(text []byte) error {
	_, err := s.file.WriteAt(text, s.size)
	if err != nil {
		s.behind = s.file.Truncate(s.size) != nil
		return err
	}
	if err := s.file.Sync(); err != nil {
		s.behind = true // nobody knows what of it is on disk
		return err
	}
	s.size += int64(len(text))
	s.sum = crc32.Update(s.sum, castagnoli, text)
	return nil
}

// Close is Store's.
func (s *fileStore) Close() error {
	var err error
	if s.file != nil {
		err = s.file.Close()
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// faults gives what was found since the last call.
func (s *fileStore) faults() []storeFault {
	found := s.found
	s.found = nil
	return found
}
