namespace space {
template <typename T> struct Holder {
	T value;
	T __attribute__((noinline)) get(T a) const { return value + a; }
};
}

int main(int argc, char **)
{
	return space::Holder<int>{argc}.get(1) + (int)space::Holder<double>{1.5}.get(2);
}
