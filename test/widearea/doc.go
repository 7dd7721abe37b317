// Package widearea is a wide-area network on one machine: hosts are network namespaces, each joined by a TUN device to a router in this process, which delays and drops
// their packets by a matrix of latencies between cities. The matrix can be replaced and hosts can be cut off while it runs.
//
// The router is a program because many kernels come without netem, and because a program can change all paths at one instant. It needs Linux and root.
package widearea
