#include "dataio/formats/pickle.h"

#include <algorithm>
#include <array>

namespace millrace {

namespace {

constexpr std::size_t kMostSteps = 1'000'000;  // the official files take 200,000 at most
constexpr std::array<std::string_view, 4> kGlobals = {"numpy.core.multiarray\n_reconstruct",
                                                      "numpy._core.multiarray\n_reconstruct",
                                                      "numpy\nndarray", "numpy\ndtype"};

}  // namespace

Pickle::Pickle(std::span<const std::byte> bytes, std::string name)
    : bytes_(reinterpret_cast<const char*>(bytes.data()), bytes.size()), name_(std::move(name)) {
  run();
}

void Pickle::run() {
  for (std::size_t steps = 0;; ++steps) {
    if (steps == kMostSteps) {
      throw damaged("has more steps than expected");
    }
    opcode_at_ = position_;
    const auto opcode = static_cast<unsigned char>(take(1)[0]);
    if (opcode == '.') {
      break;
    }
    if (!step(opcode)) {
      throw damaged(
          fmt::format("has the opcode {:#04x}, which dictionaries of CIFAR do not need and this "
                      "reader does not know",
                      opcode));
    }
  }
  result_ = pop();
  if (values_[result_].kind != Kind::dictionary) {
    throw damaged("ends with something else than a dictionary");
  }
}

/// False for an unknown opcode. Their names and meanings stand in Python's pickletools.
bool Pickle::step(unsigned char opcode) {
  switch (opcode) {
    case 0x80:  // PROTO
      if (const auto protocol = take_number(1); protocol > 2) {
        throw damaged(fmt::format("is of protocol {}, expected at most 2", protocol));
      }
      return true;
    case '(':
      marks_.push_back(stack_.size());
      return true;
    case 'a':
      return extend(Kind::list, {pop()}), true;
    case 'e':
      return extend(Kind::list, pop_to_mark()), true;
    case 's': {
      const Id value = pop(), key = pop();
      return extend(Kind::dictionary, {key, value}), true;
    }
    case 'u':
      return extend(Kind::dictionary, pop_to_mark()), true;
    case 'R':
      return reduce(), true;
    case 'b':
      return build(), true;
    case 'q':
    case 'r':
      return store(take_number(opcode == 'q' ? 1 : 4)), true;
    case 'h':
    case 'j':
      return recall(take_number(opcode == 'h' ? 1 : 4)), true;
    default:
      return step_to_value(opcode);
  }
}

/// Those that push a new value.
bool Pickle::step_to_value(unsigned char opcode) {
  const auto push_integer = [&](std::int64_t number) { push({.kind = Kind::integer, .number = number}); };
  switch (opcode) {
    case 'N':
      return push({}), true;
    case 0x88:  // True
      return push_integer(1), true;
    case 0x89:  // False
      return push_integer(0), true;
    case 'K':
      return push_integer(static_cast<std::int64_t>(take_number(1))), true;
    case 'M':
      return push_integer(static_cast<std::int64_t>(take_number(2))), true;
    case 'J':  // signed
      return push_integer(static_cast<std::int32_t>(take_number(4))), true;
    case 'U':
      return push({.kind = Kind::text, .text = take(take_number(1))}), true;
    case 'T':
    case 'X':
      return push({.kind = Kind::text, .text = take(take_number(4))}), true;
    case '}':
      return push({.kind = Kind::dictionary}), true;
    case ']':
      return push({.kind = Kind::list}), true;
    case ')':
      return push({.kind = Kind::tuple}), true;
    case 0x85:
    case 0x86:
    case 0x87:
      return push_tuple(opcode - 0x84u), true;
    case 't':
      return push({.kind = Kind::tuple, .items = pop_to_mark()}), true;
    case 'c':
      return push_global(), true;
    default:
      return false;
  }
}

void Pickle::push(Value value) {
  values_.push_back(std::move(value));
  stack_.push_back(static_cast<Id>(values_.size() - 1));
}

void Pickle::push_tuple(std::size_t size) {
  std::vector<Id> items(size);
  for (std::size_t i = size; i > 0; --i) {
    items[i - 1] = pop();
  }
  push({.kind = Kind::tuple, .items = std::move(items)});
}

void Pickle::push_global() {
  const std::size_t module = bytes_.find('\n', position_);
  const std::size_t end = module == std::string_view::npos ? module : bytes_.find('\n', module + 1);
  const std::string_view name =
      end == std::string_view::npos ? std::string_view() : bytes_.substr(position_, end - position_);
  if (std::find(kGlobals.begin(), kGlobals.end(), name) == kGlobals.end()) {
    std::string shown(name.substr(0, 60));
    std::replace(shown.begin(), shown.end(), '\n', '.');
    throw damaged(fmt::format("names {}, expected nothing but numpy's arrays", shown));
  }
  position_ = end + 1;
  push({.kind = Kind::global, .text = name});
}

Pickle::Id Pickle::pop() {
  if (stack_.empty() || (!marks_.empty() && stack_.size() <= marks_.back())) {
    throw damaged("takes from an empty stack");
  }
  const Id top = stack_.back();
  stack_.pop_back();
  return top;
}

std::vector<Pickle::Id> Pickle::pop_to_mark() {
  if (marks_.empty() || marks_.back() > stack_.size()) {
    throw damaged("has no mark where one is needed");
  }
  const auto begin = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
  std::vector<Id> items(begin, stack_.end());
  stack_.erase(begin, stack_.end());
  marks_.pop_back();
  return items;
}

void Pickle::extend(Kind kind, const std::vector<Id>& items) {
  if (stack_.empty() || values_[stack_.back()].kind != kind ||
      (kind == Kind::dictionary && items.size() % 2 != 0)) {
    throw damaged("adds to something that does not take it");
  }
  std::vector<Id>& all = values_[stack_.back()].items;
  all.insert(all.end(), items.begin(), items.end());
}

/// Where Python would call a function: the call is kept as data.
void Pickle::reduce() {
  const Id arguments = pop(), function = pop();
  if (values_[function].kind != Kind::global || values_[arguments].kind != Kind::tuple) {
    throw damaged("calls something else than a function");
  }
  push({.kind = Kind::call, .items = {function, arguments}});
}

/// Where Python would set an object's state.
void Pickle::build() {
  const Id state = pop();
  if (stack_.empty() || values_[stack_.back()].kind != Kind::call ||
      values_[stack_.back()].items.size() != 2) {
    throw damaged("sets the state of something that has none");
  }
  values_[stack_.back()].items.push_back(state);
}

void Pickle::store(std::uint64_t number) {
  if (stack_.empty()) {
    throw damaged("takes from an empty stack");
  }
  memo_[number] = stack_.back();
}

void Pickle::recall(std::uint64_t number) {
  const auto found = memo_.find(number);
  if (found == memo_.end()) {
    throw damaged("recalls what it did not store");
  }
  stack_.push_back(found->second);
}

std::string_view Pickle::take(std::size_t size) {
  if (size > bytes_.size() - position_) {
    throw damaged(fmt::format("wants {} bytes more where {} are left: it is cut or damaged", size,
                              bytes_.size() - position_));
  }
  const std::string_view taken = bytes_.substr(position_, size);
  position_ += size;
  return taken;
}

/// Little-endian.
std::uint64_t Pickle::take_number(std::size_t size) {
  std::uint64_t value = 0;
  const std::string_view taken = take(size);
  for (std::size_t i = size; i > 0; --i) {
    value = value << 8 | static_cast<unsigned char>(taken[i - 1]);
  }
  return value;
}

InputError Pickle::damaged(std::string_view what) const {
  return InputError("{}: the pickle {} at offset {}", name_, what, opcode_at_);
}

InputError Pickle::unexpected(std::string_view key, std::string_view expected) const {
  return InputError("{}: the pickle has no {} under '{}'", name_, expected, key);
}

const Pickle::Value& Pickle::find(std::string_view key, Kind kind) const {
  const std::vector<Id>& items = values_[result_].items;
  for (std::size_t i = items.size(); i > 0; i -= 2) {  // a later one replaces an earlier one
    const Value& value = values_[items[i - 1]];
    if (const Value& name = values_[items[i - 2]]; name.kind == Kind::text && name.text == key) {
      if (value.kind == kind) {
        return value;
      }
      break;
    }
  }
  throw unexpected(key, kind == Kind::list ? "list" : "numpy array");
}

std::vector<std::int64_t> Pickle::integers(std::string_view key) const {
  std::vector<std::int64_t> numbers;
  for (const Id id : find(key, Kind::list).items) {
    if (values_[id].kind != Kind::integer) {
      throw unexpected(key, "list of whole numbers");
    }
    numbers.push_back(values_[id].number);
  }
  return numbers;
}

std::vector<std::string> Pickle::texts(std::string_view key) const {
  std::vector<std::string> texts;
  std::size_t total = 0;
  for (const Id id : find(key, Kind::list).items) {
    if (values_[id].kind != Kind::text) {
      throw unexpected(key, "list of texts");
    }
    total += values_[id].text.size();
    if (total > bytes_.size()) {  // it may recall one for ever
      throw unexpected(key, "list of texts, each once");
    }
    texts.emplace_back(values_[id].text);
  }
  return texts;
}

Pickle::Matrix Pickle::matrix(std::string_view key) const {
  const InputError wrong = unexpected(key, "two-dimensional numpy array of u8 in row order");
  const auto expect = [&](bool good) {
    if (!good) {
      throw wrong;
    }
  };
  const auto call_of = [&](const Value& value, std::string_view function) {
    return value.kind == Kind::call && values_[value.items[0]].text.ends_with(function);
  };
  const Value& array = find(key, Kind::call);
  expect(call_of(array, "\n_reconstruct") && array.items.size() == 3);
  const Value& state = values_[array.items[2]];  // version, shape, type, columns first?, bytes
  expect(state.kind == Kind::tuple && state.items.size() == 5);
  const Value &shape = values_[state.items[1]], &type = values_[state.items[2]];
  const Value &columns_first = values_[state.items[3]], &bytes = values_[state.items[4]];
  expect(shape.kind == Kind::tuple && shape.items.size() == 2 && call_of(type, "\ndtype") &&
         columns_first.kind == Kind::integer && columns_first.number == 0 && bytes.kind == Kind::text);
  const Value& arguments = values_[type.items[1]];
  expect(!arguments.items.empty() && values_[arguments.items[0]].text == "u1");
  const Value &rows = values_[shape.items[0]], &columns = values_[shape.items[1]];
  std::int64_t size = 0;
  expect(rows.kind == Kind::integer && columns.kind == Kind::integer && rows.number >= 0 &&
         columns.number >= 0 && !__builtin_mul_overflow(rows.number, columns.number, &size) &&
         static_cast<std::uint64_t>(size) == bytes.text.size());
  return {rows.number, columns.number, std::as_bytes(std::span(bytes.text))};
}

}  // namespace millrace
