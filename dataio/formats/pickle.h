#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/error.h"

namespace millrace {

/// A dictionary of numbers, texts and numpy arrays, pickled by Python in protocol 2, as the official CIFAR
/// files are.
///
/// A pickle is a program; this reads it as data and never calls anything. An opcode or a name that such
/// dictionaries do not need is an error. Time and memory are linear in the bytes and limited.
class Pickle {
 public:
  /// Keeps views of `bytes`; `name` is for messages.
  /// @throws InputError naming the offset where it is no such dictionary.
  Pickle(std::span<const std::byte> bytes, std::string name);

  /// A two-dimensional numpy array of u8, in row order, where it lies in the pickle.
  struct Matrix {
    std::int64_t rows = 0, columns = 0;
    std::span<const std::byte> values;
  };
  /// What the dictionary has under `key`. @throws InputError when there is no such thing.
  std::vector<std::int64_t> integers(std::string_view key) const;
  std::vector<std::string> texts(std::string_view key) const;
  Matrix matrix(std::string_view key) const;

 private:
  using Id = std::uint32_t;  // values stand in one row and name each other: freeing them needs no recursion
  enum class Kind : std::uint8_t { none, integer, text, tuple, list, dictionary, global, call };
  struct Value {
    Kind kind = Kind::none;
    std::int64_t number = 0;
    std::string_view text = {};  // of a global: "module\nname"
    // Of a dictionary: key, value, key, ...; of a call: function, arguments, state.
    std::vector<Id> items = {};
  };

  void run();
  bool step(unsigned char opcode);
  bool step_to_value(unsigned char opcode);
  void push(Value value);
  void push_tuple(std::size_t size);
  void push_global();
  Id pop();
  std::vector<Id> pop_to_mark();
  void extend(Kind kind, const std::vector<Id>& items);
  void reduce();
  void build();
  void store(std::uint64_t number);
  void recall(std::uint64_t number);
  std::string_view take(std::size_t size);
  std::uint64_t take_number(std::size_t size);
  InputError damaged(std::string_view what) const;

  const Value& find(std::string_view key, Kind kind) const;
  InputError unexpected(std::string_view key, std::string_view expected) const;

  std::string_view bytes_;
  std::string name_;
  std::size_t position_ = 0, opcode_at_ = 0;
  std::vector<Value> values_;
  std::vector<Id> stack_;
  std::vector<std::size_t> marks_;  // heights of the stack
  std::unordered_map<std::uint64_t, Id> memo_;
  Id result_ = 0;
};

}  // namespace millrace
