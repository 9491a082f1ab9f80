// Package output is how every tool prints: text columns, JSON Lines, times,
// errno names, and the buffered writer they go to.
//
// What a traced program says of itself (a file name, a comm, an argument) is
// untrusted: any local user chooses it, and a terminal obeys what it is sent.
// Such bytes reach the output only through [AppendEscaped], [AppendPadded] or
// [Object.Str].
//
// All Append functions add to dst and return it, as the built-in append does,
// and allocate only when dst must grow. A row is thus built in the writer's own
// buffer:
//
//	row := w.Row()
//	row = output.AppendInt(row, pid, -6)
//	row = append(row, ' ')
//	row = output.AppendEscaped(row, path)
//	row = append(row, '\n')
//	err := w.EndRow(row)
package output
