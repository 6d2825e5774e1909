package webui

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"sync"
	"time"
)

// The bounds of sessions and links.
const (
	maxSessions = 64 // the oldest ends where another begins
	sessionLife = 12 * time.Hour
	maxLinks    = 16 // outstanding
	linkLife    = 5 * time.Minute
)

// secret is a new one of 32 random bytes, for a cookie or a path.
func secret() (string, error) {
	var random [32]byte
	if _, err := rand.Read(random[:]); err != nil {
		return "", err
	}
	return base64.RawURLEncoding.EncodeToString(random[:]), nil
}

// sessions are those who were let in: at most maxSessions.
type sessions struct {
	mu   sync.Mutex // guards the rest
	open map[digest]*session
}

// A session is one browser that was let in, until ctx ends.
type session struct {
	began time.Time
	ctx   context.Context
	end   context.CancelFunc
}

// begin opens a session, and gives what its cookie says. Where there are too many, the oldest ends.
func (s *sessions) begin() (string, error) {
	value, err := secret()
	if err != nil {
		return "", err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var oldest digest
	for d, one := range s.open {
		if one.ctx.Err() != nil {
			delete(s.open, d)
			continue
		}
		if first := s.open[oldest]; first == nil || one.began.Before(first.began) {
			oldest = d
		}
	}
	if len(s.open) >= maxSessions {
		s.open[oldest].end()
		delete(s.open, oldest)
	}
	ctx, cancel := context.WithTimeout(context.Background(), sessionLife)
	s.open[digestOf(value)] = &session{began: time.Now(), ctx: ctx, end: cancel}
	return value, nil
}

// get gives the session of a cookie's value; nil if there is none, or it has ended.
func (s *sessions) get(value string) *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.open[digestOf(value)]
	if one == nil || one.ctx.Err() != nil {
		return nil
	}
	return one
}

// end ends the session of a cookie's value.
func (s *sessions) end(value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.open[digestOf(value)]; one != nil {
		one.end()
		delete(s.open, digestOf(value))
	}
}

// links are the one-time links that nobody followed yet, and when each ends.
type links struct {
	mu   sync.Mutex // guards the rest
	open map[digest]time.Time
}

// errTooManyLinks is that of add.
var errTooManyLinks = errors.New("too many one-time links wait to be followed; each ends after five minutes")

// add makes a link.
func (l *links) add(now time.Time) (code string, expires time.Time, err error) {
	if code, err = secret(); err != nil {
		return "", time.Time{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for d, ends := range l.open {
		if !now.Before(ends) {
			delete(l.open, d)
		}
	}
	if len(l.open) >= maxLinks {
		return "", time.Time{}, errTooManyLinks
	}
	expires = now.Add(linkLife)
	l.open[digestOf(code)] = expires
	return code, expires, nil
}

// use takes a link, once.
func (l *links) use(code string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	ends, known := l.open[digestOf(code)]
	delete(l.open, digestOf(code))
	return known && now.Before(ends)
}
