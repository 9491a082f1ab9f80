// Takes a compiler some seconds.
#include <iostream>
#include <map>
#include <regex>
#include <string>
#include <unordered_map>
#include <vector>

int main(int argc, char **argv)
{
	std::map<std::string, std::vector<int>> found;
	std::unordered_map<std::string, std::string> names;
	std::regex word("([a-z]+)=([0-9]+)", std::regex::icase);

	for (int i = 0; i < argc; i++) {
		std::smatch m;
		std::string arg = argv[i];
		if (std::regex_search(arg, m, word))
			found[m[1]].push_back(std::stoi(m[2]));
		names.emplace(arg, std::to_string(i));
	}
	for (const auto &[k, v] : found)
		std::cout << k << ' ' << v.size() << ' ' << names[k] << '\n';
}
