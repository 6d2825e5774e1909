package alerting

import (
	"slices"
	"sync"
)

// The kinds of record in a Store.
const (
	storePosition = "position" // one, key "": up to where the event log was read
	storeGroup    = "group"    // open groups, by key
	storeMessage  = "message"  // the message that each sink is sending, by sink
	storeBaseline = "baseline" // destinations, by pool and destination
	storeLearning = "learning" // how far each pool has learnt, by pool
)

// A Store keeps what alerting knows over a restart. Its records are small
// values, JSON, under a kind and a key. One goroutine calls at a time.
type Store interface {
	// Load calls visit for every record of a kind. The value is the callee's
	// only until it returns.
	Load(kind string, visit func(key string, value []byte) error) error
	// Commit makes all changes or none, and returns when they are safe. One
	// without changes makes sure that the earlier ones still are.
	Commit(changes []Change) error
	// Close frees the store; nothing may be called after it.
	Close() error
}

// A Change puts one record, or removes it where Value is nil.
type Change struct {
	Kind, Key string
	Value     []byte
}

// A MemoryStore is a Store that ends with the process. The zero MemoryStore is
// ready. It is safe for concurrent use.
type MemoryStore struct {
	mu      sync.Mutex
	records map[string]map[string][]byte // bounded by what alerting keeps
}

// Load is Store's.
func (s *MemoryStore) Load(kind string, visit func(string, []byte) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, value := range s.records[kind] {
		if err := visit(key, value); err != nil {
			return err
		}
	}
	return nil
}

// Commit is Store's.
func (s *MemoryStore) Commit(changes []Change) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records == nil {
		s.records = make(map[string]map[string][]byte)
	}
	for _, c := range changes {
		if s.records[c.Kind] == nil {
			s.records[c.Kind] = make(map[string][]byte)
		}
		if c.Value == nil {
			delete(s.records[c.Kind], c.Key)
		} else {
			s.records[c.Kind][c.Key] = slices.Clone(c.Value)
		}
	}
	return nil
}

// Close is Store's.
func (s *MemoryStore) Close() error { return nil }
