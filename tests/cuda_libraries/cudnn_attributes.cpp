// What each kind of descriptor takes, as data.
#include <algorithm>

#include "cudnn_descriptor.h"

namespace millrace::fake_cudnn {
namespace {

constexpr std::int64_t kMany = 1 << 20;

std::vector<AttributeRow> operation_rows(cudnnBackendDescriptorType_t operation,
                                         std::initializer_list<cudnnBackendAttributeName_t> descriptors,
                                         std::initializer_list<cudnnBackendAttributeName_t> scalars) {
  std::vector<AttributeRow> rows;
  for (const auto name : descriptors) {
    rows.push_back({operation, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, 1, true});
  }
  for (const auto name : scalars) {
    rows.push_back({operation, name, CUDNN_TYPE_FLOAT, 1, 1, true});
  }
  return rows;
}

std::vector<AttributeRow> all_rows() {
  constexpr auto tensor = CUDNN_BACKEND_TENSOR_DESCRIPTOR, window = CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR,
                 graph = CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR,
                 heuristics = CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, engine = CUDNN_BACKEND_ENGINE_DESCRIPTOR,
                 knob = CUDNN_BACKEND_KNOB_CHOICE_DESCRIPTOR, config = CUDNN_BACKEND_ENGINECFG_DESCRIPTOR,
                 plan = CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, pack = CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR,
                 device = CUDNN_BACKEND_DEVICEPROP_DESCRIPTOR;
  constexpr auto descriptor = CUDNN_TYPE_BACKEND_DESCRIPTOR;
  std::vector<AttributeRow> rows = {
      {tensor, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, true},
      {tensor, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 1, kMany, true},
      {tensor, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 1, kMany, true},
      {tensor, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, 1, true},
      {tensor, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, 1, true},
      {tensor, CUDNN_ATTR_TENSOR_IS_VIRTUAL, CUDNN_TYPE_BOOLEAN, 1, 1, false},
      {tensor, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, 1, false},
      {window, CUDNN_ATTR_CONVOLUTION_COMP_TYPE, CUDNN_TYPE_DATA_TYPE, 1, 1, true},
      {window, CUDNN_ATTR_CONVOLUTION_CONV_MODE, CUDNN_TYPE_CONVOLUTION_MODE, 1, 1, true},
      {window, CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, CUDNN_TYPE_INT64, 1, 1, true},
      {window, CUDNN_ATTR_CONVOLUTION_DILATIONS, CUDNN_TYPE_INT64, 1, kMany, true},
      {window, CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES, CUDNN_TYPE_INT64, 1, kMany, true},
      {window, CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, CUDNN_TYPE_INT64, 1, kMany, true},
      {window, CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, CUDNN_TYPE_INT64, 1, kMany, true},
      {graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, descriptor, 1, 1, true},
      {graph, CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, false},
      {heuristics, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, descriptor, 1, 1, true},
      {heuristics, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, 1, true},
      {heuristics, CUDNN_ATTR_ENGINEHEUR_DEVICEPROP, descriptor, 1, 1, false},
      {engine, CUDNN_ATTR_ENGINE_OPERATION_GRAPH, descriptor, 1, 1, true},
      {engine, CUDNN_ATTR_ENGINE_GLOBAL_INDEX, CUDNN_TYPE_INT64, 1, 1, true},
      {engine, CUDNN_ATTR_ENGINE_DEVICEPROP, descriptor, 1, 1, false},
      {knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_TYPE, CUDNN_TYPE_KNOB_TYPE, 1, 1, true},
      {knob, CUDNN_ATTR_KNOB_CHOICE_KNOB_VALUE, CUDNN_TYPE_INT64, 1, 1, true},
      {config, CUDNN_ATTR_ENGINECFG_ENGINE, descriptor, 1, 1, true},
      {config, CUDNN_ATTR_ENGINECFG_KNOB_CHOICES, descriptor, 1, CUDNN_KNOB_TYPE_COUNTS, false},
      {plan, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, descriptor, 1, 1, true},
      {plan, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, false},
      {plan, CUDNN_ATTR_EXECUTION_PLAN_DEVICEPROP, descriptor, 1, 1, false},
      {pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, 1, kMany, false},
      {pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, 1, kMany, false},
      {pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, 1, false},
      {device, CUDNN_ATTR_DEVICEPROP_HANDLE, CUDNN_TYPE_HANDLE, 1, 1, false},
      {device, CUDNN_ATTR_DEVICEPROP_JSON_REPRESENTATION, CUDNN_TYPE_CHAR, 1, kMany, false},
  };
  const auto append = [&](const std::vector<AttributeRow>& more) {
    rows.insert(rows.end(), more.begin(), more.end());
  };
  append(operation_rows(
      CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR,
      {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X,
       CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y},
      {CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA}));
  append(operation_rows(
      CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
      {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY},
      {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA}));
  append(operation_rows(
      CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
      {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X,
       CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY},
      {CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA, CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA}));
  return rows;
}

}  // namespace

const std::vector<AttributeRow>& attribute_rows() {
  static const std::vector<AttributeRow> rows = all_rows();
  return rows;
}

const AttributeRow* find_row(cudnnBackendDescriptorType_t descriptor, cudnnBackendAttributeName_t name) {
  const auto& rows = attribute_rows();
  const auto found = std::ranges::find_if(
      rows, [&](const AttributeRow& row) { return row.descriptor == descriptor && row.name == name; });
  return found == rows.end() ? nullptr : &*found;
}

std::size_t bytes_of(cudnnBackendAttributeType_t type) {
  switch (type) {
    case CUDNN_TYPE_CHAR:
    case CUDNN_TYPE_BOOLEAN:
      return 1;
    case CUDNN_TYPE_INT64:
    case CUDNN_TYPE_DOUBLE:
    case CUDNN_TYPE_HANDLE:
    case CUDNN_TYPE_VOID_PTR:
    case CUDNN_TYPE_BACKEND_DESCRIPTOR:
      return 8;
    default:
      return 4;
  }
}

}  // namespace millrace::fake_cudnn
