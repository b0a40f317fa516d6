package authz

import (
	"crypto/sha256"
	"encoding/binary"
)

// keyName makes a key for a NATS key-value bucket, which knows few characters,
// of words that hold any. Hashed, they may also be long, and do not show in
// the bucket's listing. Each is preceded by its length, so that no two lists
// of words run together into the same bytes.
func keyName(kind string, words ...string) string {
	h := sha256.New()
	for _, word := range words {
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(word))))
		h.Write([]byte(word))
	}
	return kind + "." + encode(h.Sum(nil))
}
