package main

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// port is an address that the node listens on, by the key that says so.
type port struct {
	key, address, number string
	ip                   netip.Addr // unspecified: every interface; not valid: a name
	name                 string
}

// checkPorts finds addresses that cannot be had both. Those that are no addresses have been told already.
func (c *config) checkPorts(f *findings) {
	var all []port
	for _, one := range []struct{ key, value string }{
		{"listen", c.Listen}, {"admin.listen", c.Admin.Listen}, {"nats.listen", c.NATS.Listen}, {"nats.cluster_listen", c.NATS.ClusterListen},
	} {
		address := one.value[strings.LastIndexByte(one.value, '@')+1:] // a user and password may be before it
		host, number, err := net.SplitHostPort(address)
		if err != nil || number == "0" {
			continue
		}
		p := port{key: one.key, address: address, number: number, name: host}
		switch host {
		case "":
			p.ip = netip.IPv6Unspecified()
		case "localhost":
			p.ip = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		default:
			p.ip, _ = netip.ParseAddr(host)
		}
		for _, other := range all {
			if p.clashes(other) {
				f.add(p.key, strconv.Quote(address), "needs the port of "+other.key+" ("+other.address+"); use another one")
				break
			}
		}
		all = append(all, p)
	}
}

func (p port) clashes(other port) bool {
	if p.number != other.number {
		return false
	}
	return p.name == other.name || p.ip.IsValid() && other.ip.IsValid() && (p.ip.IsUnspecified() || other.ip.IsUnspecified() || p.ip.Unmap() == other.ip.Unmap())
}
