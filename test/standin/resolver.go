package main

import (
	"net"
	"net/netip"
	"strings"

	"golang.org/x/net/dns/dnsmessage"
)

// answerQuestion prints the name asked and gives our own address for every
// question of type A, nothing for the others. Nil for what is no question.
func answerQuestion(datagram []byte) []byte {
	var parser dnsmessage.Parser
	header, err := parser.Start(datagram)
	if err != nil {
		return nil
	}
	question, err := parser.Question()
	if err != nil {
		return nil
	}
	entry{Question: strings.ToLower(strings.TrimSuffix(question.Name.String(), "."))}.write()
	reply := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: header.ID, Response: true, RecursionDesired: header.RecursionDesired, RecursionAvailable: true},
		Questions: []dnsmessage.Question{question},
	}
	if question.Type == dnsmessage.TypeA {
		reply.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: question.Name, Class: dnsmessage.ClassINET, TTL: 60},
			Body:   &dnsmessage.AResource{A: ownAddress()},
		}}
	}
	packed, err := reply.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// ownAddress is the IPv4 address of this container on its one network, or
// 0.0.0.0 if it has none.
func ownAddress() [4]byte {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return [4]byte{}
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err == nil && prefix.Addr().Is4() && !prefix.Addr().IsLoopback() {
			return prefix.Addr().As4()
		}
	}
	return [4]byte{}
}
