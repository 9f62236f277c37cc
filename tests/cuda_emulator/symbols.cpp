// What the program's own symbol table (ELF) says of kernels and of their `__shared__` variables.
#include <cstring>
#include <cxxabi.h>
#include <elf.h>
#include <filesystem>
#include <fstream>
#include <link.h>
#include <map>
#include <mutex>
#include <vector>

#include "internal.h"

namespace millrace::emulator {
namespace {

struct Variable {
  std::size_t offset, bytes;  // in a thread's storage
};
struct Symbols {
  std::map<std::uintptr_t, std::pair<std::string, std::string>> functions;  // source file, mangled name
  std::vector<Variable> shared;
};

template <typename T>
std::vector<T> read_from(std::ifstream& file, std::uint64_t offset, std::uint64_t bytes) {
  std::vector<T> result(bytes / sizeof(T));
  file.seekg(static_cast<std::streamoff>(offset));
  file.read(reinterpret_cast<char*>(result.data()), static_cast<std::streamsize>(result.size() * sizeof(T)));
  return result;
}

/// device.h marks the variables: their names end in the tag "device_shared".
bool is_shared(std::string_view name) { return name.find("B13device_shared") != std::string_view::npos; }

Symbols read_symbols() {
  Symbols result;
  std::ifstream file("/proc/self/exe", std::ios::binary);
  const auto header = read_from<ElfW(Ehdr)>(file, 0, sizeof(ElfW(Ehdr))).at(0);
  const auto sections = read_from<ElfW(Shdr)>(file, header.e_shoff, header.e_shnum * sizeof(ElfW(Shdr)));
  for (const auto& section : sections) {
    if (section.sh_type != SHT_SYMTAB) {
      continue;
    }
    const auto& names_section = sections.at(section.sh_link);
    const auto names = read_from<char>(file, names_section.sh_offset, names_section.sh_size);
    std::string source;  // of the local symbols behind its name
    for (const auto& symbol : read_from<ElfW(Sym)>(file, section.sh_offset, section.sh_size)) {
      const char* name = &names.at(symbol.st_name);
      const int type = ELF64_ST_TYPE(symbol.st_info);
      const bool local = ELF64_ST_BIND(symbol.st_info) == STB_LOCAL;
      if (type == STT_FILE) {
        source = std::filesystem::path(name).stem();
      } else if (type == STT_FUNC && symbol.st_value != 0) {
        result.functions[symbol.st_value] = {local ? source : "", name};
      } else if (type == STT_TLS && is_shared(name)) {
        result.shared.push_back({symbol.st_value, symbol.st_size});
      }
    }
  }
  if (result.functions.empty()) {
    die("the program has no symbols: do not strip it");
  }
  return result;
}

const Symbols& symbols() {
  static const Symbols found = read_symbols();
  return found;
}

dl_phdr_info program() {
  dl_phdr_info found{};
  dl_iterate_phdr(
      [](dl_phdr_info* info, std::size_t, void* to) {
        *static_cast<dl_phdr_info*>(to) = *info;
        return 1;  // the first one is the program
      },
      &found);
  return found;
}

}  // namespace

std::string name_of(const void* kernel) {
  const auto& functions = symbols().functions;
  const auto found = functions.find(reinterpret_cast<std::uintptr_t>(kernel) - program().dlpi_addr);
  if (found == functions.end()) {
    return "a kernel without a name";
  }
  const auto& [source, mangled] = found->second;
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> demangled(
      abi::__cxa_demangle(mangled.c_str(), nullptr, nullptr, &status), std::free);
  std::string name = status == 0 ? demangled.get() : mangled;
  constexpr std::string_view kAnonymous = "(anonymous namespace)::";
  for (auto place = name.find(kAnonymous); place != std::string::npos; place = name.find(kAnonymous)) {
    name.erase(place, kAnonymous.size());
  }
  name.erase(std::min(name.find_first_of("<("), name.size()));
  name.erase(0, name.find_last_of(": ") + 1);
  return source.empty() ? name : source + ": " + name;
}

void poison_shared() {
  thread_local auto* const storage = static_cast<std::byte*>(program().dlpi_tls_data);
  for (const Variable& variable : symbols().shared) {
    std::memset(storage + variable.offset, Arena::kFill, variable.bytes);
  }
}

}  // namespace millrace::emulator
