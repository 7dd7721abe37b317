package dnsmsg

import "github.com/miekg/dns"

// KeepHIPPacked makes the package dns treat HIP records (RFC 8005) as those of a
// type that it does not know (RFC 3597): a record of 64 kB can have 32,000
// compressed names, which take 16 ms and 11 MB to unpack, before any plugin sees
// the message. It is to be called before any server starts.
func KeepHIPPacked() { delete(dns.TypeToRR, dns.TypeHIP) }
