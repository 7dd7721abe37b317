package corefile

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

func address(text string, valid func(netip.Addr) bool) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" || !valid(addr) {
		return netip.Addr{}, fmt.Errorf("invalid address '%s': expected the IP address of a host, such as 192.0.2.53 or 2001:db8::53", text)
	}
	return addr.Unmap(), nil
}

// Addresses parses addresses of hosts, each of which may be given once; valid
// decides which addresses a host may have. An IPv4-mapped address is taken for
// the IPv4 address.
func Addresses(args []string, valid func(netip.Addr) bool) ([]netip.Addr, error) {
	addrs := make([]netip.Addr, 0, len(args))
	for _, arg := range args {
		addr, err := address(arg, valid)
		if err != nil {
			return nil, err
		}
		if slices.Contains(addrs, addr) {
			return nil, Twice("address "+addr.String(), "name it once")
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

// Prefix parses an address prefix without bits beyond its length.
func Prefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		if addr, err := netip.ParseAddr(text); err == nil {
			return prefix, fmt.Errorf("invalid prefix '%s': the length is missing, did you mean %s/%d?", text, addr, addr.BitLen())
		}
		return prefix, fmt.Errorf("invalid prefix '%s': expected an address prefix such as 192.0.2.0/24 or 2001:db8::/48", text)
	case prefix.Addr().Is4In6():
		return prefix, fmt.Errorf("invalid prefix '%s': expected IPv4 prefixes in the form 192.0.2.0/24", text)
	case prefix.Masked() != prefix:
		return prefix, fmt.Errorf("invalid prefix '%s': bits are set beyond its length, did you mean %s?", text, prefix.Masked())
	}
	return prefix, nil
}

// Prefixes parses at least one address prefix.
func Prefixes(args []string) ([]netip.Prefix, error) {
	if len(args) == 0 {
		return nil, ErrUsage
	}
	prefixes := make([]netip.Prefix, len(args))
	for i, arg := range args {
		var err error
		if prefixes[i], err = Prefix(arg); err != nil {
			return nil, err
		}
	}
	return prefixes, nil
}

// Durations are the durations from Min to Max.
type Durations struct {
	Min, Max time.Duration
	Example  string
}

// Parse parses the duration of a property or an option.
func (r Durations) Parse(name, text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < r.Min || d > r.Max {
		return 0, fmt.Errorf("invalid duration '%s' for '%s': expected %s to %s, such as %s", text, name, short(r.Min), short(r.Max), r.Example)
	}
	return d, nil
}

// short returns a duration without zeros at its end: 24h for 24h0m0s.
func short(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
}

// Number parses the number of a property or an option: 1 to most.
func Number(name, text string, most int) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > most {
		return 0, fmt.Errorf("invalid number '%s' for '%s': expected 1 to %d", text, name, most)
	}
	return n, nil
}
