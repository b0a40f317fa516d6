package authz

import (
	"crypto/ed25519"
	"errors"
	"math/big"
	"slices"
)

// The field prime of edwards25519, and d of -x² + y² = 1 + d·x²·y²
// (RFC 8032 §5.1).
var (
	edwardsP = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	edwardsD = func() *big.Int {
		inverse := new(big.Int).ModInverse(big.NewInt(121666), edwardsP)
		d := new(big.Int).Mul(big.NewInt(-121665), inverse)
		return d.Mod(d, edwardsP)
	}()
)

// checkEdwards refuses an Ed25519 public key that is no point of the curve,
// with which nothing verifies, and one of the points of order 1, 2, 4 or 8,
// with which anybody can sign. crypto/ed25519 looks for neither.
func checkEdwards(key ed25519.PublicKey) error {
	if len(key) != ed25519.PublicKeySize {
		return errors.New("an Ed25519 public key has 32 bytes; export the key again")
	}
	b := slices.Clone(key)
	b[31] &= 0x7f // the sign of x
	slices.Reverse(b)
	y := new(big.Int).SetBytes(b)
	if y.Cmp(edwardsP) >= 0 {
		return errors.New("the Ed25519 public key is not in canonical form; export the key again")
	}
	// x² = (y² - 1) / (d·y² + 1)
	one := big.NewInt(1)
	y2 := new(big.Int).Mul(y, y)
	u := new(big.Int).Sub(y2, one)
	v := new(big.Int).Mul(edwardsD, y2)
	v.Add(v, one).Mod(v, edwardsP) // never 0: -1/d is no square
	x2 := u.Mul(u, v.ModInverse(v, edwardsP))
	x2.Mod(x2, edwardsP)
	if new(big.Int).ModSqrt(x2, edwardsP) == nil {
		return errors.New("the Ed25519 public key is not a point on the curve; export the key again")
	}
	// x = 0: order 1 or 2. y = 0: order 4. x² + y² = 0: the double has y = 0.
	sum := new(big.Int).Add(x2, y2)
	if x2.Sign() == 0 || y.Sign() == 0 || sum.Mod(sum, edwardsP).Sign() == 0 {
		return errors.New("the Ed25519 public key has a small order, so that anybody can sign for it; make one with: notifyd keys generate --alg EdDSA")
	}
	return nil
}
