package output

import "testing"

func TestErrnoName(t *testing.T) {
	for n, want := range map[int32]string{
		0: "0", 1: "EPERM", 2: "ENOENT", 11: "EAGAIN", 13: "EACCES", 35: "EDEADLK", 40: "ELOOP",
		95: "EOPNOTSUPP", 133: "EHWPOISON", 512: "ERESTARTSYS", 513: "ERESTARTNOINTR",
		514: "ERESTARTNOHAND", 516: "ERESTART_RESTARTBLOCK", 517: "EPROBE_DEFER", 524: "ENOTSUPP",
		529: "EIOCBQUEUED", 530: "ERECALLCONFLICT", 520: "E520", 1234: "E1234", -2: "E-2",
	} {
		if got := ErrnoName(n); got != want {
			t.Errorf("ErrnoName(%d) = %q, want %q", n, got, want)
		}
	}
}
