package command

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"
	"strings"
	"syscall"
)

// An identity is the user and the groups that a command runs as.
type identity struct {
	uid, gid int
	groups   []int // supplementary
}

// lookup finds the identity of a user given as name, number or UID:GID. It is
// nil for an empty string.
func lookup(spec string) (*identity, error) {
	if spec == "" {
		return nil, nil
	}
	if uid, gid, ok := strings.Cut(spec, ":"); ok {
		u, err1 := parseID(uid)
		g, err2 := parseID(gid)
		if err := errors.Join(err1, err2); err != nil {
			return nil, fmt.Errorf("run as %q: want a user's name, its number, or UID:GID in numbers", spec)
		}
		return &identity{uid: u, gid: g}, nil
	}
	u, err := user.Lookup(spec)
	if err != nil {
		_, notNumber := parseID(spec)
		if notNumber == nil {
			u, err = user.LookupId(spec)
		}
		var noName user.UnknownUserError
		var noID user.UnknownUserIdError
		switch {
		case err == nil:
		case errors.As(err, &noID):
			return nil, fmt.Errorf("run as %q: no such user in /etc/passwd, so its group is unknown; give UID:GID", spec)
		case errors.As(err, &noName):
			return nil, fmt.Errorf("run as %q: no such user in /etc/passwd; a user known elsewhere can be given as UID:GID", spec)
		default:
			return nil, fmt.Errorf("run as %q: %w", spec, err)
		}
	}
	names, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("run as %q: find its groups: %w", spec, err)
	}
	id := &identity{}
	if id.uid, err = parseID(u.Uid); err != nil {
		return nil, fmt.Errorf("run as %q: user id in /etc/passwd: %w", spec, err)
	}
	if id.gid, err = parseID(u.Gid); err != nil {
		return nil, fmt.Errorf("run as %q: group id in /etc/passwd: %w", spec, err)
	}
	for _, name := range names {
		gid, err := parseID(name)
		if err != nil {
			return nil, fmt.Errorf("run as %q: group id in /etc/group: %w", spec, err)
		}
		id.groups = append(id.groups, gid)
	}
	return id, nil
}

// parseID parses a user or group id. The highest 32-bit number is not one: the
// kernel takes it for "leave as it is".
func parseID(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 32)
	if err == nil && n == 1<<32-1 {
		err = fmt.Errorf("%s is not a user or group id", s)
	}
	return int(n), err
}

// encode is the inverse of decodeIdentity.
func (id *identity) encode() string {
	if id == nil {
		return ""
	}
	words := []string{strconv.Itoa(id.uid), strconv.Itoa(id.gid)}
	for _, g := range id.groups {
		words = append(words, strconv.Itoa(g))
	}
	return strings.Join(words, ",")
}

// decodeIdentity reads uid, gid and supplementary groups, separated by commas,
// and nil from the empty string.
func decodeIdentity(s string) (*identity, error) {
	if s == "" {
		return nil, nil
	}
	var ids []int
	for word := range strings.SplitSeq(s, ",") {
		n, err := parseID(word)
		if err != nil {
			return nil, err
		}
		ids = append(ids, n)
	}
	if len(ids) < 2 {
		return nil, errors.New("identity without a group")
	}
	return &identity{uid: ids[0], gid: ids[1], groups: ids[2:]}, nil
}

// assume makes the identity that of this process, in all its threads. Once the
// user id is another, nothing of root's is left, so it comes last.
func (id *identity) assume() error {
	if err := syscall.Setgroups(id.groups); err != nil {
		return err
	}
	if err := syscall.Setresgid(id.gid, id.gid, id.gid); err != nil {
		return err
	}
	return syscall.Setresuid(id.uid, id.uid, id.uid)
}
