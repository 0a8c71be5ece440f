// SPDX-License-Identifier: Apache-2.0
// The same with a goroutine for each connection.
package main

import (
	"fmt"
	"io"
	"net"
	"os"
)

func serve(c net.Conn) {
	text := make([]byte, 4096)
	for {
		n, err := c.Read(text)
		if err != nil {
			break
		}
		if _, err = c.Write(text[:n]); err != nil {
			break
		}
	}
	c.Close()
}

func main() {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	fmt.Println(listener.Addr().(*net.TCPAddr).Port)
	go func() {
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			go serve(c)
		}
	}()
	io.Copy(io.Discard, os.Stdin)
}
