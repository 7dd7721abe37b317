package dnsmsg

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// A record with very many compressed names costs no more than its bytes.
func TestHIPRecordsStayPacked(t *testing.T) {
	KeepHIPPacked()
	const names = 32_000
	m, err := new(dns.Msg).SetQuestion(strings.Repeat("a.", 127), dns.TypeA).Pack()
	if err != nil {
		t.Fatal(err)
	}
	m[11] = 1
	m = append(m, 0, 0, byte(dns.TypeHIP), 0, dns.ClassINET, 0, 0, 0, 0)
	m = binary.BigEndian.AppendUint16(m, 4+2*names)
	data := append([]byte{0, 2, 0, 0}, bytes.Repeat([]byte{0xC0, 12}, names)...)
	m = append(m, data...)

	var r dns.Msg
	if n := testing.AllocsPerRun(5, func() {
		if err := r.Unpack(m); err != nil {
			t.Fatal(err)
		}
	}); n > 50 {
		t.Errorf("Expected the names to stay packed, got %v allocations", n)
	}
	unknown, ok := r.Extra[0].(*dns.RFC3597)
	if !ok || len(unknown.Rdata) != 2*len(data) || unknown.Hdr.Rrtype != dns.TypeHIP {
		t.Fatalf("Expected the data of a record of an unknown type, got a %T", r.Extra[0])
	}
	r.Compress = true
	if b, err := r.Pack(); err != nil || !bytes.HasSuffix(b, data) {
		t.Errorf("Expected the same record to be packed, got error %v", err)
	}
}

// Zone files and transfers may have HIP records in the form of RFC 3597.
func TestHIPRecordInUnknownForm(t *testing.T) {
	KeepHIPPacked()
	rr, err := dns.NewRR(`example.org. 3600 IN HIP \# 4 00020000`)
	if err != nil || rr.Header().Rrtype != dns.TypeHIP {
		t.Fatalf("Expected a HIP record, got %v, %v", rr, err)
	}
	if _, err := dns.NewRR("example.org. 3600 IN HIP 2 200100107B1A74DF365639CC39F1D578 AwEAAbdx"); err == nil {
		t.Error("Expected an error for the other form, as docs/limits.md says")
	}
}
