package bus

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"go.uber.org/zap"
)

// An embedded server and the directory that it owns.
type embedded struct {
	server         *server.Server
	started        chan struct{} // closed when server.Start has returned
	dir            *dataDir
	user, password string // of our own connection
	maxPayload     int
}

func (b *Bus) openEmbedded(ctx context.Context, o *Options) error {
	e, err := startEmbedded(ctx, o, b.log)
	if err != nil {
		return err
	}
	n := b.connection()
	n.InProcessServer = e.server
	n.IgnoreDiscoveredServers = true
	n.User, n.Password = e.user, e.password
	// A deadline on an in-memory pipe is a new timer for each write, and there is nothing that it could
	// save us from.
	n.FlusherTimeout = -1
	if b.conn, err = n.Connect(); err != nil {
		return errors.Join(fmt.Errorf("embedded NATS: %w", err), e.stop(ctx))
	}
	b.embedded, b.node = e, e.dir.node
	<-b.up
	l, err := b.openLink(e.server.InProcessConn, e.user, e.password)
	if err != nil {
		b.conn.Close()
		return errors.Join(err, e.stop(ctx))
	}
	b.events = l
	l.run()
	return nil
}

func startEmbedded(ctx context.Context, o *Options, log *zap.Logger) (*embedded, error) {
	dir, err := openDataDir(o.DataDir)
	if err != nil {
		return nil, err
	}
	e := &embedded{dir: dir}
	if err := e.start(ctx, o, log.Named("nats")); err != nil {
		return nil, errors.Join(err, e.stop(ctx))
	}
	return e, nil
}

// start runs the server and returns when it is ready.
func (e *embedded) start(ctx context.Context, o *Options, log *zap.Logger) error {
	opts, err := e.options(o)
	if err != nil {
		return err
	}
	fatal := make(chan string, 1)
	s, err := server.NewServer(opts)
	if err != nil {
		return fmt.Errorf("embedded NATS: %w", err)
	}
	s.SetLoggerV2(&natsLog{log.Sugar(), fatal}, false, false, false)
	e.server, e.started = s, make(chan struct{})
	go func() {
		s.Start() // returns when storage is recovered and listeners are open
		close(e.started)
	}()
	select {
	case <-e.started:
	case <-ctx.Done():
		return fmt.Errorf("embedded NATS did not start: %w", context.Cause(ctx))
	}
	for {
		select {
		case text := <-fatal:
			return startError(o, text)
		case <-ctx.Done():
			return fmt.Errorf("embedded NATS is not ready: %w", context.Cause(ctx))
		default:
		}
		if s.ReadyForConnections(50 * time.Millisecond) { // false while the route listener opens
			return nil
		}
	}
}

// startError turns what the server logs before it would end the process into the option to change.
func startError(o *Options, text string) error {
	err := errors.New(text)
	switch {
	case strings.Contains(text, "JetStream"):
		return optionError("DataDir", o.DataDir, err, "name a directory that this process may write to")
	case strings.Contains(text, "router port"):
		return optionError("Embedded.ClusterListen", redact(o.Embedded.ClusterListen), err, "use a free port")
	case strings.Contains(text, "listening on port"):
		return optionError("Embedded.Listen", redact(o.Embedded.Listen), err, "use a free port")
	}
	return fmt.Errorf("embedded NATS: %w", err)
}

func (e *embedded) options(o *Options) (*server.Options, error) {
	opts := &server.Options{
		ServerName:             e.dir.node,
		NoSigs:                 true,
		DontListen:             true,
		JetStream:              true,
		DisableJetStreamBanner: true,
		StoreDir:               e.dir.path,
		// Check bounds it. JetStream's own requests and answers must fit too.
		MaxPayload: max(int32(o.MaxPayload), DefaultMaxPayload),
	}
	e.maxPayload = int(opts.MaxPayload)
	// As the server does with sync_interval: always in its file.
	opts.SyncInterval, opts.SyncAlways = max(o.Embedded.SyncInterval, 0), o.Embedded.SyncInterval < 0
	var err error
	if opts.TLSConfig, err = o.serverTLS(); err != nil {
		return nil, err
	}
	opts.TLS = opts.TLSConfig != nil
	e.user, e.password = rand.Text(), rand.Text() // no name that an operator may choose
	opts.Users = []*server.User{{Username: e.user, Password: e.password}}
	if o.Embedded.Listen != "" {
		u, err := parseAddress("Embedded.Listen", o.Embedded.Listen)
		if err != nil {
			return nil, err
		}
		opts.DontListen = false
		opts.Host, opts.Port = hostPort(u)
		if password, guarded := u.User.Password(); guarded {
			opts.Users = append(opts.Users, &server.User{Username: u.User.Username(), Password: password})
		} else {
			// On loopback, without a password. Not for the buckets: a client that writes there undoes revocations,
			// and one that reads the answers there has tickets.
			events := &server.SubjectPermission{Allow: []string{o.Prefix + ".ev.>"}}
			publish := &server.SubjectPermission{Allow: events.Allow}
			// Nor to streams: JetStream sends its answer wherever the publisher wants it, into a bucket too, and believes
			// the headers that name a publisher.
			for _, s := range o.Streams {
				for _, topic := range s.Topics {
					publish.Deny = append(publish.Deny, o.Prefix+".ev."+topic)
				}
			}
			opts.Users = append(opts.Users, &server.User{
				Username: "events", Permissions: &server.Permissions{Publish: publish, Subscribe: events},
			})
			opts.NoAuthUser = "events"
		}
	}
	if o.Embedded.ClusterListen != "" {
		if err := joinCluster(opts, &o.Embedded); err != nil {
			return nil, err
		}
	}
	return opts, nil
}

// serverTLS is the configuration of both ports of the embedded server, nil for none.
func (o *Options) serverTLS() (*tls.Config, error) {
	if o.TLSCert == "" {
		return nil, nil
	}
	cert, err := o.certificate()
	if err != nil {
		return nil, err
	}
	c := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
	if o.TLSCA == "" {
		return c, nil
	}
	if c.ClientCAs, err = o.authorities(); err != nil {
		return nil, err
	}
	c.RootCAs, c.ClientAuth = c.ClientCAs, tls.RequireAndVerifyClientCert
	return c, nil
}

func joinCluster(opts *server.Options, o *Embedded) error {
	u, err := parseAddress("Embedded.ClusterListen", o.ClusterListen)
	if err != nil {
		return err
	}
	c := &opts.Cluster
	c.Name = o.ClusterName
	c.Host, c.Port = hostPort(u)
	c.NoAdvertise = true
	if opts.TLSConfig != nil {
		c.TLSConfig, c.TLSTimeout = opts.TLSConfig.Clone(), dialTimeout.Seconds()
	}
	c.Username = u.User.Username()
	c.Password, _ = u.User.Password()
	for _, r := range o.Routes {
		route, err := parseAddress("Embedded.Routes", r)
		if err != nil {
			return err
		}
		if route.User == nil {
			route.User = u.User
		}
		opts.Routes = append(opts.Routes, route)
	}
	if opts.DontListen {
		// nats-server opens its routes only after a client port. This one is free, on loopback, and
		// takes a password that nobody knows.
		opts.DontListen = false
		opts.Host, opts.Port = "127.0.0.1", server.RANDOM_PORT
	}
	return nil
}

func hostPort(u *url.URL) (string, int) {
	port, _ := strconv.Atoi(u.Port()) // parseAddress has checked it
	return cmp.Or(u.Hostname(), "0.0.0.0"), port
}

// stop ends the server and gives the directory free. When ctx ends sooner, that goes on behind it.
func (e *embedded) stop(ctx context.Context) error {
	done := make(chan error, 1)
	go func() {
		if e.server != nil {
			<-e.started // the server cannot shut down in the middle of Start
			e.server.Shutdown()
			e.server.WaitForShutdown()
		}
		done <- e.dir.close()
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("stop embedded NATS: %w", context.Cause(ctx))
	}
}

// natsLog passes the server's log on. Its notices are debug lines here; its fatal errors end the start
// instead of the process.
type natsLog struct {
	*zap.SugaredLogger
	fatal chan string
}

func (l *natsLog) Warnf(f string, v ...any) {
	if strings.HasPrefix(f, "Plaintext passwords detected") {
		l.Debugf(f, v...) // ours is made anew at each start and never leaves the process
		return
	}
	l.SugaredLogger.Warnf(f, v...)
}

func (l *natsLog) Noticef(f string, v ...any) { l.Debugf(f, v...) }
func (l *natsLog) Tracef(f string, v ...any)  { l.Debugf(f, v...) }

func (l *natsLog) Fatalf(f string, v ...any) {
	l.Errorf(f, v...)
	select {
	case l.fatal <- fmt.Sprintf(f, v...):
	default:
	}
}
