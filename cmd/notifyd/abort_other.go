//go:build !unix

package main

func abortOnPanic() {}
