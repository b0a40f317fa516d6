package auth

// Algorithms are those of the keys that are measured, in the order of every report.
var Algorithms = []string{"EdDSA", "ES256", "RS256", "HS256"}

// The tokens of a case.
const (
	Fresh      = "fresh"      // each operation has a token of its own
	Remembered = "remembered" // all have the same, which the server knows
)

// Report is all that was measured, as --json writes it.
type Report struct {
	Go         string  `json:"go"`
	CPUs       int     `json:"cpus"`
	Rounds     int     `json:"rounds"`
	Connects   int     `json:"connects"` // of a case in a round
	Messages   int     `json:"messages"`
	Connect    []*Cost `json:"connect"` // ratios to message
	Publish    []*Cost `json:"publish"` // ratios to plain, remembered
	NoToken    int     `json:"frame_bytes_without_token"`
	Bytes      []Bytes `json:"bytes"`
	Expiry     []Delay `json:"expiry"`     // from exp
	Revocation []Delay `json:"revocation"` // from the call
}

// Delay is how soon tokens of an algorithm brought no more events. Times are in
// milliseconds, by the subscriber's clock, which is the server's.
type Delay struct {
	Alg         string `json:"alg"`
	Subscribers int    `json:"subscribers"`
	Last        Spread `json:"last_event_ms"`
	Told        Spread `json:"told_ms"`
	// Late is how many got an event that was sent after exp, or after the call to
	// revoke had been answered.
	Late int `json:"late"`
}

// Spread is a distribution in milliseconds.
type Spread struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

// Bytes is what one message takes on the wire.
type Bytes struct {
	Kind  string `json:"kind"`
	Alg   string `json:"alg"`
	Token int    `json:"token_bytes"`
	Frame int    `json:"frame_bytes"`
}

// Cost is one case and what it costs the server.
type Cost struct {
	Name   string  `json:"name"`  // a strategy, or a kind of token
	Token  string  `json:"token"` // fresh or remembered
	Alg    string  `json:"alg"`
	Micros Summary `json:"cpu_us"`
	Ratio  Summary `json:"ratio"` // to the base case of the same algorithm, round by round

	rounds []float64 // CPU of the server in µs for one operation
	n      int
	// prepare makes ready what does not count, and returns the operation, which
	// is done n times, and the end, after which it is as before.
	prepare func(n int) (op func(i int) error, end func(), err error)
}

// Summary sums up several measurements of one thing.
type Summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

func (c *Cost) label() string { return c.Name + ", " + c.Token }

// Rows groups cases that differ only in their algorithm, in the order in which they come.
func Rows(cases []*Cost) (rows [][]*Cost) {
	at := map[string]int{}
	for _, c := range cases {
		i, ok := at[c.label()]
		if !ok {
			i = len(rows)
			at[c.label()] = i
			rows = append(rows, nil)
		}
		rows[i] = append(rows[i], c)
	}
	return rows
}
