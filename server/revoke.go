package server

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/go-json-experiment/json"
	"go.uber.org/zap"

	"github.com/notifyd/notifyd/wire"
)

// Revocation names the tokens that count no more: the one with an ID, or those
// of a subject that were issued before a time.
type Revocation struct {
	Issuer  string    // "": of any issuer
	ID      string    // jti
	Subject string    // sub
	Before  time.Time // with Subject
}

// ErrBadRevocation is what [Store.Revoke] returns, wrapped, for a revocation
// that says too little or too much.
var ErrBadRevocation = errors.New("bad revocation")

// ErrNotShared is what [Store.Revoke] returns, wrapped, when a revocation is in
// force on this node, and could not be kept for the others.
var ErrNotShared = errors.New("in force on this node alone")

// revokeTimeout bounds a revocation: the store takes 3 s at most, and then all
// connections are looked at.
const revokeTimeout = 10 * time.Second

// maxRevocationBytes is room for a jti and an iss of 1,024 bytes each, all of them
// written as \u0000.
const maxRevocationBytes = 16 << 10

// revocationsHandler answers POST /v1/revocations. When a revocation was answered
// with 204, nothing more comes of such a token on this node, and it is kept for all
// others.
func (s *Server) revocationsHandler(w http.ResponseWriter, r *http.Request) {
	token, code := s.bearer(r)
	if code == wire.OK && !token.Admin() {
		code = wire.Forbidden
	}
	if code != wire.OK {
		s.log.Debug("revocation refused", zap.Stringer("addr", s.httpClientAddr(r)), zap.Stringer("code", code))
		refuse(w, code, "")
		return
	}
	var body struct {
		Issuer  string    `json:"iss"`
		ID      string    `json:"jti"`
		Subject string    `json:"sub"`
		Before  time.Time `json:"before"`
	}
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxRevocationBytes))
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		refuse(w, wire.TooLarge, "")
		return
	case err != nil:
		s.bodyProblem(w)
		return
	}
	// Strict: what is not understood may be meant to revoke more.
	if err := json.Unmarshal(text, &body, json.RejectUnknownMembers(true)); err != nil {
		refuse(w, wire.BadEnvelope, `the body is one of {"jti": …} and {"sub": …, "before": "RFC 3339"}, with "iss" if you like`)
		return
	}
	// The body may have taken its time, and the token may have ended meanwhile.
	if code := token.Check(httpNow()); code != wire.OK {
		refuse(w, code, "")
		return
	}
	if body.Issuer == "" && !token.MayRevoke("") {
		body.Issuer = token.Issuer() // an administrator of one issuer means its tokens
	}
	if !token.MayRevoke(body.Issuer) {
		refuse(w, wire.Forbidden, "")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), revokeTimeout)
	defer cancel()
	err = s.store.Revoke(ctx, Revocation{Issuer: body.Issuer, ID: body.ID, Subject: body.Subject, Before: body.Before})
	about := []zap.Field{zap.String("by", token.Subject()), zap.String("iss", body.Issuer), zap.String("jti", body.ID), zap.String("sub", body.Subject)}
	switch {
	case errors.Is(err, ErrBadRevocation):
		refuse(w, wire.BadEnvelope, err.Error())
	case errors.Is(err, ErrNotShared):
		// Not a success that asks for nothing more: whoever calls has to try again, here or on another node.
		s.log.Warn("revoked on this node alone", append(about, zap.Error(err))...)
		refuse(w, wire.Unavailable, "the revocation is in force on this node; the others do not know of it: try again until the answer is 204")
	case err != nil:
		s.log.Warn("a revocation cannot be kept", zap.Error(err))
		refuse(w, wire.Unavailable, "")
	default:
		s.log.Info("revoked", about...)
		w.WriteHeader(http.StatusNoContent)
	}
}
