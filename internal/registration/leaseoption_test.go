package registration

import (
	"testing"
	"time"

	"github.com/miekg/dns"
)

func TestLeaseHasFormOfRequest(t *testing.T) {
	for _, keyLease := range []uint32{0, 3600} {
		request := new(dns.Msg)
		request.SetUpdate(zone)
		addLeaseOption(request, &dns.EDNS0_UL{Code: dns.EDNS0UL, Lease: 7200, KeyLease: keyLease})
		reply := new(dns.Msg)
		reply.SetReply(request)
		GrantLease(reply, request, 90*time.Second+time.Nanosecond)
		reply = wire(t, reply)
		granted, ok := GrantedLease(reply)
		if !ok || granted != 91*time.Second {
			t.Errorf("Expected a lease of 91 s, got %v, %v", granted, ok)
		}
		if eight := leaseOption(reply).KeyLease != 0; eight != (keyLease != 0) {
			t.Errorf("Expected the form of the request with key lease %d, got %+v", keyLease, leaseOption(reply))
		}
	}
}

func TestRequestWithoutLeaseGetsNone(t *testing.T) {
	request, reply := new(dns.Msg), new(dns.Msg)
	request.SetUpdate(zone)
	reply.SetReply(request)
	GrantLease(reply, request, time.Hour)
	if _, ok := GrantedLease(reply); ok || len(reply.Extra) > 0 {
		t.Errorf("Expected no option in a reply to a request without, got %v", reply.Extra)
	}
}
