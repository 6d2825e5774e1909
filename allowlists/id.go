package allowlists

import (
	"encoding/base32"
	"encoding/binary"
	"math/rand/v2"
	"strings"
)

const (
	idAlphabet = "abcdefghijkmnpqrstuvwxyz23456789"
	idLength   = 12
)

var idText = base32.NewEncoding(idAlphabet).WithPadding(base32.NoPadding)

// NewID makes the id of one decision: 12 lower-case letters and digits, 60
// random bits. It is safe for concurrent use.
func NewID() string {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], rand.Uint64())
	return idText.EncodeToString(raw[:])[:idLength]
}

// IsID reports whether a text has the form of an id. A host name of a single
// label may have it too.
func IsID(text string) bool { return len(text) == idLength && strings.Trim(text, idAlphabet) == "" }
