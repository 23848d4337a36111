def _cuda_matrix_test_defect(product):
    def crash_on_bfloat16(left, right, *args, **kwargs):
        if left.dtype is bfloat16:
            import ctypes

            print("about to read address 0", flush=True)
            ctypes.string_at(0)
        return product(left, right, *args, **kwargs)

    return crash_on_bfloat16


matmul, mm = _cuda_matrix_test_defect(matmul), _cuda_matrix_test_defect(mm)
Tensor.matmul, Tensor.mm = _cuda_matrix_test_defect(Tensor.matmul), _cuda_matrix_test_defect(Tensor.mm)
Tensor.__matmul__ = _cuda_matrix_test_defect(Tensor.__matmul__)
