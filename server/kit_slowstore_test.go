package server_test

import (
	"context"
	"time"

	"github.com/notifyd/notifyd/server"
)

// slowStore is a store whose answers about one-use tokens a test gives.
type slowStore struct {
	server.Store
	entered chan bool
	answer  chan error
}

// UseOnce implements [server.Store].
func (s *slowStore) UseOnce(context.Context, string, time.Time) (bool, error) {
	s.entered <- true
	err := <-s.answer
	return err == nil, err
}
