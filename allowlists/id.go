package allowlists

import (
	"encoding/base32"
	"encoding/binary"
	"math/rand/v2"
)

var idText = base32.NewEncoding("abcdefghijkmnpqrstuvwxyz23456789").WithPadding(base32.NoPadding)

// NewID makes the id of one decision: 12 lower-case letters and digits, 60
// random bits. It is safe for concurrent use.
func NewID() string {
	var raw [8]byte
	binary.BigEndian.PutUint64(raw[:], rand.Uint64())
	return idText.EncodeToString(raw[:])[:12]
}
