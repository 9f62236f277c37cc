#include "cublaslt_rules.h"

#include <algorithm>
#include <fmt/format.h>

#include "sums.h"

namespace millrace::fake_cublaslt {
namespace {

using fakes::Kept;

bool is_valid(const Layout& layout) {
  const std::uint64_t line = layout.order == CUBLASLT_ORDER_COL ? layout.rows : layout.columns;
  return layout.rows > 0 && layout.columns > 0 && layout.batches > 0 && layout.leading > 0 &&
         static_cast<std::uint64_t>(layout.leading) >= line && layout.batch_stride >= 0;
}

std::uint64_t rows_of(const Layout& layout, std::int32_t operation) {
  return operation == CUBLAS_OP_N ? layout.rows : layout.columns;
}
std::uint64_t columns_of(const Layout& layout, std::int32_t operation) {
  return operation == CUBLAS_OP_N ? layout.columns : layout.rows;
}

bool fits(const Problem& p) {
  const Operation& op = p.operation;
  const auto is_operation = [](std::int32_t one) {
    return one == CUBLAS_OP_N || one == CUBLAS_OP_T || one == CUBLAS_OP_C;
  };
  if (!is_operation(op.transposes_a) || !is_operation(op.transposes_b)) {
    return false;
  }
  const bool has_room = p.d.batches == 1 || p.d.batch_stride >= p.d.elements();
  return columns_of(p.a, op.transposes_a) == rows_of(p.b, op.transposes_b) &&
         rows_of(p.a, op.transposes_a) == p.d.rows && columns_of(p.b, op.transposes_b) == p.d.columns &&
         p.c.rows == p.d.rows && p.c.columns == p.d.columns && p.a.batches == p.d.batches &&
         p.b.batches == p.d.batches && p.c.batches == p.d.batches && has_room;
}

Kept kept_by(const Operation& op) {
  switch (op.compute) {
    case CUBLAS_COMPUTE_32F_FAST_TF32:
      return Kept::tf32;
    case CUBLAS_COMPUTE_32F_FAST_16BF:
      return Kept::bf16;
    case CUBLAS_COMPUTE_32F_FAST_16F:
      return Kept::f16;
    default:
      return Kept::all;
  }
}

double rounded_to(cudaDataType type, double value) {
  double place = 0;
  fakes::store(&place, 0, type, value);
  return fakes::load(&place, 0, type);
}

}  // namespace

std::int64_t Layout::elements() const {
  return place(static_cast<std::int64_t>(rows) - 1, static_cast<std::int64_t>(columns) - 1) + 1;
}

std::size_t Layout::bytes() const {
  return static_cast<std::size_t>(elements() + (batches - 1) * batch_stride) * fakes::size_of(data_type());
}

std::int64_t Problem::k() const { return static_cast<std::int64_t>(columns_of(a, operation.transposes_a)); }

std::string Problem::text() const {
  const auto matrix = [](const Layout& one) {
    return fmt::format("{} {}x{} by {} order {} batches {} by {}", one.type, one.rows, one.columns,
                       one.leading, one.order, one.batches, one.batch_stride);
  };
  return fmt::format("{} {} {} {} {} | {} | {} | {} | {}", operation.compute, operation.scale,
                     operation.transposes_a, operation.transposes_b, operation.epilogue, matrix(a), matrix(b),
                     matrix(c), matrix(d));
}

cublasStatus_t status_of(const Problem& p) {
  const Operation& op = p.operation;
  const auto layouts = {&p.a, &p.b, &p.c, &p.d};
  if (!std::ranges::all_of(layouts, [](const Layout* one) { return is_valid(*one); }) || !fits(p)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  const bool known_order = std::ranges::all_of(layouts, [](const Layout* one) {
    return one->order == CUBLASLT_ORDER_COL || one->order == CUBLASLT_ORDER_ROW;
  });
  const bool typed = std::ranges::any_of(kTypes, [&](const TypeRow& row) {
    return op.compute == row.compute && op.scale == row.scale && p.a.data_type() == row.factors &&
           p.b.data_type() == row.factors && p.c.data_type() == row.result && p.d.data_type() == row.result &&
           (!op.adds_bias() || op.bias_data_type(p.d.data_type()) == row.bias);
  });
  const bool known =
      op.pointer_mode == CUBLASLT_POINTER_MODE_HOST && op.transposes_c == CUBLAS_OP_N &&
      std::ranges::find(kEpilogues, static_cast<cublasLtEpilogue_t>(op.epilogue)) != std::end(kEpilogues);
  return known_order && typed && known ? CUBLAS_STATUS_SUCCESS : CUBLAS_STATUS_NOT_SUPPORTED;
}

namespace {

/// One matrix, as doubles: `count` lines of `width`, line i place j being element (i, j), or (j, i).
fakes::Rows<double> lines(const Layout& layout, const void* data, std::int64_t count, std::int64_t width,
                          bool swapped, std::int64_t batch, Kept kept) {
  fakes::Rows<double> made{count, width};
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t j = 0; j < width; ++j) {
      const std::int64_t place = swapped ? layout.place(j, i) : layout.place(i, j);
      made.row(i)[j] = fakes::load(data, place + batch * layout.batch_stride, layout.data_type(), kept);
    }
  }
  return made;
}

/// The sums of one matrix: line j holds column j of the result.
fakes::Rows<double> sums(const fakes::Rows<double>& a, const fakes::Rows<double>& b, std::int64_t begin,
                         std::int64_t end) {
  fakes::Rows<double> made{b.count, a.width};
  std::vector<const double*> left;
  std::vector<double*> out;
  for (std::int64_t j = 0; j < b.count; ++j) {
    left.push_back(b.row(j) + begin);
    out.push_back(made.row(j));
  }
  fakes::add_products(left, a.row(begin), a.width, end - begin, a.width, out);
  return made;
}

}  // namespace

void multiply(const Problem& p, const Operands& at, bool splits_in_result) {
  const Operation& op = p.operation;
  const Kept kept = kept_by(op);
  const cudaDataType type = p.d.data_type();
  const std::int64_t m = p.m(), n = p.n(), k = p.k(), half = splits_in_result ? k / 2 : 0;
  for (std::int64_t batch = 0; batch < p.d.batches; ++batch) {
    const auto a = lines(p.a, at.from[0], k, m, op.transposes_a == CUBLAS_OP_N, batch, kept);
    const auto b = lines(p.b, at.from[1], n, k, op.transposes_b == CUBLAS_OP_N, batch, kept);
    auto all = sums(a, b, half, k);
    if (half > 0) {
      const auto first = sums(a, b, 0, half);
      for (std::size_t i = 0; i < all.values.size(); ++i) {
        all.values[i] = rounded_to(type, first.values[i]) + rounded_to(type, all.values[i]);
      }
    }
    for (std::int64_t j = 0; j < n; ++j) {
      for (std::int64_t i = 0; i < m; ++i) {
        double value = at.alpha * all.row(j)[i];
        if (at.beta != 0) {
          value += at.beta * fakes::load(at.from[2], p.c.place(i, j) + batch * p.c.batch_stride, type);
        }
        if (op.adds_bias()) {
          value += fakes::load(op.bias, i, op.bias_data_type(type));
        }
        if ((op.epilogue & CUBLASLT_EPILOGUE_RELU) != 0) {
          value = std::max(value, 0.0);
        }
        fakes::store(at.to, p.d.place(i, j) + batch * p.d.batch_stride, type, value);
      }
    }
  }
}

}  // namespace millrace::fake_cublaslt
