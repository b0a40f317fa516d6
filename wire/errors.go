package wire

// ErrUTF8 is what Parse returns for a frame that is not UTF-8, whatever else may
// be wrong with it. RFC 6455 §8.1 wants the connection closed with 1007.
var ErrUTF8 = bad("the message must be UTF-8")

// Errors of syntax: the frame is not JSON (RFC 8259).
var (
	errSyntax    = bad("the message must be well-formed JSON")
	errTruncated = bad("the JSON text ends too early")
	errTrailing  = bad("nothing may follow the envelope's closing brace")
	errControl   = bad("escape control characters in strings")
	errEscape    = bad("a string holds an escape that JSON does not have")
	errSurrogate = bad("outside data, an escaped surrogate needs its partner")
)

// Errors of bounds, at which reading stops too.
var (
	errDepth   = bad("nest at most 64 levels, the envelope included")
	errMembers = bad("an object here may have at most 32 members")
)

// Errors of meaning.
var (
	errNotObject = bad("the message must be one JSON object, without a byte order mark")
	errDuplicate = bad("use each member name once")
	errCase      = bad("write member names in lower case, exactly as documented")

	errNoType     = bad("type is missing")
	errNotPublish = bad("only a publish can be sent here: leave type out")
	errType       = bad("type must be one of publish, subscribe, unsubscribe, auth and ping")
	errID         = bad("id must be a string of 1 to 64 bytes")
	errNoTopic    = bad("topic is missing")
	errTopic      = bad("topic must be a string")
	errToken      = bad("token must be a string")
	errNoData     = bad("data is missing")
	errMsgID      = bad("msg_id must be a string of 1 to 64 bytes")
	errTTL        = bad("ttl must be an integer from 1 to 2147483647, in seconds")
	errSince      = bad("since must be an object with exactly one of seq, last and time")
	errSinceSeq   = bad("since.seq must be an integer from 0 to 18446744073709551615")
	errSinceLast  = bad("since.last must be an integer from 0 to 18446744073709551615")
	errSinceEpoch = bad("since.epoch must be a string of 1 to 32 bytes")
	errSinceTime  = bad("since.time must be an RFC 3339 time between the years 1678 and 2261")

	errMessage = bad("a member of the message has the wrong type")
)

func bad(detail string) *Error { return &Error{Code: BadEnvelope, Detail: detail} }
