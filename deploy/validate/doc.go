// Package validate holds tests that check the files in deploy/ against the types of the programs that read them. It is a
// module of its own, so that these programs are no dependencies of notifyd.
package validate
