package fastpath

import "golang.org/x/net/bpf"

// maxQuery is how many bytes of a datagram CoreDNS reads: what is larger is no simple
// query.
const maxQuery = 512

// classifier returns the program by which the kernel chooses the socket of a
// datagram: for what looks like a simple query one of the readers, which follow the
// one socket of CoreDNS, by the message ID, for all else that of CoreDNS, which is
// the first. Offsets count from the message; a load beyond its end returns 0, too.
func classifier(readers int) []bpf.Instruction {
	return []bpf.Instruction{
		bpf.LoadExtension{Num: bpf.ExtLen},
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: maxQuery, SkipTrue: 12},
		bpf.LoadAbsolute{Off: 2, Size: 2}, // flags
		bpf.JumpIf{Cond: bpf.JumpBitsSet, Val: ^uint32(flagRD<<8|flagAD|flagCD) & 0xffff, SkipTrue: 10},
		bpf.LoadAbsolute{Off: 4, Size: 2}, // QDCOUNT
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 1, SkipTrue: 8},
		bpf.LoadAbsolute{Off: 6, Size: 4}, // ANCOUNT and NSCOUNT
		bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: 0, SkipTrue: 6},
		bpf.LoadAbsolute{Off: 10, Size: 2}, // ARCOUNT
		bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: 1, SkipTrue: 4},
		bpf.LoadAbsolute{Off: 1, Size: 1},                         // of the message ID
		bpf.ALUOpConstant{Op: bpf.ALUOpMod, Val: uint32(readers)}, // #nosec G115 -- a few
		bpf.ALUOpConstant{Op: bpf.ALUOpAdd, Val: 1},
		bpf.RetA{},
		bpf.RetConstant{Val: 0},
	}
}

// bypass is the program by which CoreDNS gets all datagrams.
var bypass = []bpf.Instruction{bpf.RetConstant{Val: 0}}
