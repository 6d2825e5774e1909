package alerting

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// stateFile is the name of the store's file under state_dir.
const stateFile = "alerts.db"

// storeLockWait is how long OpenStore waits for another process to let go.
const storeLockWait = 2 * time.Second

// boltStore is a Store in one file, which one process may hold at a time.
type boltStore struct{ db *bolt.DB }

// OpenStore opens or creates the store in a directory, which is created if it
// is missing (0700). The file is readable for its owner only. If another
// process holds it the error says so, after storeLockWait.
func OpenStore(dir string) (Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("making alerts.state_dir %s: %w", dir, withoutPath(err))
	}
	path := filepath.Join(dir, stateFile)
	db, err := bolt.Open(path, 0o600, &bolt.Options{
		Timeout: storeLockWait, NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
	})
	switch {
	case errors.Is(err, bolterrors.ErrTimeout):
		return nil, fmt.Errorf("opening %s: another process holds it; each daemon needs an alerts.state_dir of its own", path)
	case errors.Is(err, bolterrors.ErrInvalid), errors.Is(err, bolterrors.ErrChecksum), errors.Is(err, bolterrors.ErrVersionMismatch):
		return nil, fmt.Errorf("opening %s: %w; move the file away to begin with an empty store", path, err)
	case err != nil:
		return nil, fmt.Errorf("opening %s: %w", path, withoutPath(err))
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, kind := range storeKinds {
			if _, err := tx.CreateBucketIfNotExists([]byte(kind)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		db.Close()
		return nil, fmt.Errorf("preparing %s: %w", path, err)
	}
	return &boltStore{db}, nil
}

// Load is Store's.
func (s *boltStore) Load(kind string, visit func(string, []byte) error) error {
	return s.db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte(kind)).ForEach(func(key, value []byte) error { return visit(string(key), value) })
	})
}

// Commit is Store's: one transaction, on disk when it returns.
func (s *boltStore) Commit(changes []Change) error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		for _, c := range changes {
			bucket := tx.Bucket([]byte(c.Kind))
			key := []byte(c.Key)
			if c.Key == "" {
				key = []byte("-") // bbolt has no empty keys
			}
			var err error
			if c.Value == nil {
				err = bucket.Delete(key)
			} else {
				err = bucket.Put(key, c.Value)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("writing %s: %w", stateFile, withoutPath(err))
	}
	return nil
}

// Close is Store's.
func (s *boltStore) Close() error { return s.db.Close() }
