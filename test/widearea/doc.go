// Package widearea is a wide-area network on one machine. Hosts are network
// namespaces, each joined by a TUN device to a router in this process, which
// delays and drops packets by a matrix of latencies between cities. The matrix
// can be replaced, and hosts can be cut off, at any time.
//
// The router is a program because many kernels have no netem, and because a
// program can change all paths at the same time. It needs Linux and root.
package widearea
