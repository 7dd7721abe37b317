package registry

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/miekg/dns"

	"github.com/coredns-dnslb/coredns-dnslb/internal/registration"
)

// Encode returns the form in which a registration is stored: the UPDATEs that
// state it, each after its length, as over TCP (RFC 1035, section 4.2.2).
func Encode(reg *registration.Registration) ([]byte, error) {
	numbered := *reg
	numbered.Serial = 1 // parts need one
	messages, err := numbered.Messages()
	if err != nil {
		return nil, err
	}
	var all []byte
	for _, m := range messages {
		m.Id = 0
		message, err := m.Pack()
		if err != nil {
			return nil, err
		}
		all = append(binary.BigEndian.AppendUint16(all, uint16(len(message))), message...) // #nosec G115 -- a message
	}
	return all, nil
}

// Decode returns the registration that Encode stored.
func Decode(all []byte) (*registration.Registration, error) {
	var messages []*dns.Msg
	for len(all) > 0 {
		if len(all) < 2 || len(all)-2 < int(binary.BigEndian.Uint16(all)) {
			return nil, errors.New("stored registration is cut short")
		}
		end := 2 + int(binary.BigEndian.Uint16(all))
		m := new(dns.Msg)
		if err := m.Unpack(all[2:end]); err != nil {
			return nil, err
		}
		messages, all = append(messages, m), all[end:]
	}
	return join(messages)
}

// join returns the registration that UPDATEs state.
func join(messages []*dns.Msg) (*registration.Registration, error) {
	parts := make([]*registration.Registration, 0, len(messages))
	for i, m := range messages {
		part, err := registration.Parse(m)
		if err != nil {
			return nil, err
		}
		if part.Part != i {
			return nil, fmt.Errorf("expected part %d of the registration, got part %d", i, part.Part)
		}
		parts = append(parts, part)
	}
	if len(parts) == 0 || max(parts[0].Parts, 1) != len(parts) {
		return nil, fmt.Errorf("wrong number of parts of the registration: %d", len(parts))
	}
	reg, err := registration.Join(parts)
	if err != nil {
		return nil, err
	}
	if len(reg.Addresses) == 0 {
		return nil, errors.New("stored registration has no address")
	}
	return content(reg), nil
}
