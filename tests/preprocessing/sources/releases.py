"""Releases of invented films: tables of a few rows under the real names, with the real headers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from cxr.labels import CHEXPERT

CHEXPERT_HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT.names)
NIH_HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
PADCHEST_HEADER = (
    ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,Projection,"
    "MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,"
    "PixelRepresentation_DICOM,PixelAspectRatio_DICOM,SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,"
    "WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,ExposureTime,"
    "RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,LabelsLocalizationsBySentence,"
    "labelCUIS,LocalizationsCUIS"
)
MIMIC_LABELS = (
    "Atelectasis,Cardiomegaly,Consolidation,Edema,Enlarged Cardiomediastinum,Fracture,Lung Lesion,Lung Opacity,"
    "No Finding,Pleural Effusion,Pleural Other,Pneumonia,Pneumothorax,Support Devices"
)
VINDR_HEADER = "image_id,rad_id,Cardiomegaly,Nodule/Mass,Rib fracture,Other diseases,No finding"
TAIX_HEADER = (
    "UID,PatientID,PhysicianID,StudyDate,Age,Sex,HeartSize,PulmonaryCongestion,PleuralEffusion_Right,"
    "PleuralEffusion_Left,PulmonaryOpacities_Right,PulmonaryOpacities_Left,Atelectasis_Right,Atelectasis_Left"
)


def write(path: Path, header: str, *rows: str) -> None:
    """A table of a header and rows; compressed where its name ends in .gz."""
    text = "\n".join([header, *rows]) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def chexpert_row(path: str, person: str = "Female,68,Frontal,AP", **labels: str) -> str:
    """One line of train.csv; labels are given with `_` for blanks."""
    cells = [labels.get(name.replace(" ", "_"), "") for name in CHEXPERT.names]
    return f"{path},{person},{','.join(cells)}"


def padchest_row(image: str, patient: str, labels: str, **more: str) -> str:
    """One line of PadChest's table; labels as its Python list."""
    values = {
        "ImageID": image,
        "ImageDir": "0",
        "PatientID": patient,
        "StudyID": f"s{patient}",
        "Labels": f'"{labels}"',
    }
    values |= {
        "Labels": f'"{labels}"',
        "StudyDate_DICOM": "20140915",
        "PatientBirth": "1930.0",
        "PatientSex_DICOM": "F",
        "Projection": "PA",
    }
    return ",".join((values | more).get(name, "") for name in PADCHEST_HEADER.split(","))


def mimic_labels(**values: str) -> str:
    """The 14 cells of a MIMIC label table; labels are given with `_` for blanks."""
    return ",".join(values.get(name.replace(" ", "_"), "") for name in MIMIC_LABELS.split(","))


def chexpert(root: Path) -> None:
    folder = "CheXpert-v1.0-small/"
    write(
        root / "train.csv",
        CHEXPERT_HEADER,
        chexpert_row(folder + "train/patient00001/study1/view1_frontal.jpg", No_Finding="1.0", Fracture="0.0"),
        chexpert_row(folder + "train/patient00002/study2/view1_frontal.jpg", "Male,0,Frontal,LL", Edema="-1.0"),
        chexpert_row(folder + "train/patient00002/study1/view2_lateral.jpg", "Unknown,90,Lateral,"),
    )
    valid = folder + "valid/patient64541/study1/view1_frontal.jpg"
    write(root / "valid.csv", CHEXPERT_HEADER, chexpert_row(valid, "Male,73,Frontal,PA", Lung_Opacity="1.0"))


def chexlocalize(root: Path, masks: dict[str, Any]) -> None:
    valid = "CheXpert-v1.0/valid/patient64541/study1/view1_frontal.jpg"
    write(root / "CheXpert/val_labels.csv", CHEXPERT_HEADER, chexpert_row(valid, Lung_Opacity="1.0"))
    header = ",".join(("Path", *CHEXPERT.names))
    cells = ",".join("1.0" if name == "Edema" else "0.0" for name in CHEXPERT.names)
    write(root / "CheXpert/test_labels.csv", header, f"test/patient64741/study1/view1_frontal.jpg,{cells}")
    (root / "CheXlocalize").mkdir()
    (root / "CheXlocalize/gt_segmentations_val.json").write_text(json.dumps(masks))


def nih(root: Path, *, other_release: bool = False, split: bool = True) -> None:
    rows = [
        ("00000001_000.png", "Cardiomegaly", "1", "57", "M", "PA"),
        ("00000001_001.png", "Cardiomegaly|Emphysema", "1", "58", "M", "PA"),
        ("00000002_000.png", "No Finding", "2", "81", "M", "AP"),
        ("00000003_000.png", "Infiltration|Effusion", "3", "414", "F", "PA"),
        ("00000004_000.png", "Hernia", "4", "74", "F", "AP"),
    ]
    header = NIH_HEADER
    if other_release:
        header = NIH_HEADER.replace("Patient Gender", "Patient Sex") + ","
        rows = [(*row[:3], f"{int(row[3]):03d}Y", *row[4:]) for row in rows]
    end = ",2682,2749,0.143,0.143" + ("," if other_release else "")
    lines = [f"{name},{labels},0,{patient},{age},{sex},{view}{end}" for name, labels, patient, age, sex, view in rows]
    write(root / "Data_Entry_2017_v2020.csv", header, *lines)
    write(
        root / "BBox_List_2017.csv",
        "Image Index,Finding Label,Bbox [x,y,w,h],,,",
        "00000003_000.png,Infiltrate,100.5,200,50,60.25",
        "00000003_000.png,Infiltrate,500,600,70,80",
        "00000001_000.png,Cardiomegaly,300,400,500,300",
    )
    if split:
        (root / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n00000002_000.png\n")
        (root / "test_list.txt").write_text("00000003_000.png\r\n00000004_000.png")


def google_nih(root: Path) -> None:
    write(
        root / "google2019_nih-chest-xray-labels.csv",
        NIH_HEADER + ",Fracture,Pneumothorax,Airspace opacity,Nodule or mass,Set Id",
        "00000013_008.png,No Finding,8,13,60,M,AP,3056,2544,0.139,0.139,NO,NO,YES,NO,test",
        "00000014_000.png,Mass,0,14,57,F,PA,2500,2048,0.168,0.168,YES,NO,NO,YES,val",
    )


def mimic(root: Path, *, by_hand: bool = False) -> None:
    films = [
        ("02aa804e-bde0afdd", "10000032", "50414267", "PA", "train"),
        ("174413ec-4ec4c1f7", "10000032", "50414267", "LATERAL", "train"),
        ("2a2277a9-b0ded155", "11000033", "53189527", "AP", "validate"),
        ("e084de3b-be89b11e", "12000034", "53911762", "AP", "test"),
        ("68b5c4b1-227d0485", "12000034", "53911763", "", "test"),
        ("fffabebf-74fd3a1f", "13000035", "56699142", "LL", "train"),
    ]
    header = (
        "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
        "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
    )
    lines = [f"{film},{patient},{study},CHEST,{view},3056,2544,2180,,,," for film, patient, study, view, _ in films]
    write(root / "mimic-cxr-2.0.0-metadata.csv.gz", header, *lines)
    splits = [f"{film},{study},{patient},{split}" for film, patient, study, _, split in reversed(films)]
    write(root / "mimic-cxr-2.0.0-split.csv.gz", "dicom_id,study_id,subject_id,split", *splits)
    write(
        root / "mimic-cxr-2.0.0-chexpert.csv.gz",
        f"subject_id,study_id,{MIMIC_LABELS}",
        "10000032,50414267," + mimic_labels(No_Finding="1.0"),
        "11000033,53189527," + mimic_labels(Edema="-1.0", Pneumonia="0.0"),
        "12000034,53911762," + mimic_labels(Edema="1.0"),
        "12000034,53911763," + mimic_labels(Fracture="1.0"),
    )
    if by_hand:
        header = MIMIC_LABELS.replace("Lung Opacity", "Airspace Opacity")
        row = "53911762," + mimic_labels(Lung_Opacity="1", Edema="-1")
        write(root / "mimic-cxr-2.1.0-test-set-labeled.csv", f"study_id,{header}", row)


def padchest(root: Path) -> None:
    write(
        root / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
        PADCHEST_HEADER,
        padchest_row("1_k6ga29.png", "11", "['normal']"),
        padchest_row("2_fzis7d.png", "12", "[' pleural effusion ', 'pseudonodule', '']", Projection="L"),
        padchest_row("3_aa.png", "13", "['unchanged', 'nodule']", Projection="AP_horizontal", PatientSex_DICOM="O"),
        padchest_row("4_bb.png", "14", "['']", Projection="UNK", PatientBirth=""),
        padchest_row("5_cc.png", "15", "['exclude']", Projection="EXCLUDE"),
    )


def vinbigdata(root: Path) -> None:
    """Kaggle's release: film a has two of three readers for Cardiomegaly, one for a nodule."""
    write(
        root / "train.csv",
        "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max",
        "b,No finding,14,R1,,,,",
        "a,Cardiomegaly,3,R8,10.0,20.0,90.0,60.0",
        "a,Cardiomegaly,3,R9,12.0,22.0,92.0,62.0",
        "a,Cardiomegaly,3,R9,14.0,22.0,94.0,62.0",
        "a,Nodule/Mass,8,R10,1.0,2.0,3.0,4.0",
        "a,Nodule/Mass,8,R10,5.0,6.0,7.0,8.0",
        "b,No finding,14,R2,,,,",
        "b,No finding,14,R3,,,,",
    )
    write(root / "train_meta.csv", "image_id,dim0,dim1", "a,100,120", "b,50,60")


def vindr(root: Path) -> None:
    """PhysioNet's release."""
    write(
        root / "annotations/image_labels_train.csv",
        VINDR_HEADER,
        "a,R8,1,0,0,1,0",
        "a,R9,1,0,0,1,0",
        "a,R10,0,1,0,0,0",
        "b,R1,0,0,0,0,1",
        "b,R2,0,0,0,0,1",
        "b,R3,0,0,0,0,1",
    )
    header = VINDR_HEADER.replace("rad_id,", "").replace("Other diseases", "Other disease")
    write(root / "annotations/image_labels_test.csv", header, "c,0,1,0,1,0", "d,0,0,0,0,1")
    write(
        root / "annotations/annotations_train.csv",
        "image_id,rad_id,class_name,x_min,y_min,x_max,y_max",
        "a,R8,Cardiomegaly,10,20,90,60",
        "a,R10,Nodule/Mass,1,2,3,4",
        "b,R1,No finding,,,,",
    )
    write(
        root / "annotations/annotations_test.csv",
        "image_id,class_name,x_min,y_min,x_max,y_max",
        "c,Nodule/Mass,5,6,8,10",
        "d,No finding,,,,",
    )


def rsna(root: Path) -> None:
    write(
        root / "stage_2_train_labels.csv",
        "patientId,x,y,width,height,Target",
        "0004cfab,,,,,0",
        "00436515,264.0,152.0,213.0,379.0,1",
        "00436515,562.0,152.0,256.0,453.0,1",
        "00313ee0,,,,,0",
    )
    write(
        root / "stage_2_detailed_class_info.csv",
        "patientId,class",
        "0004cfab,No Lung Opacity / Not Normal",
        "00436515,Lung Opacity",
        "00436515,Lung Opacity",
        "00313ee0,Normal",
    )
    write(
        root / "kaggle_stage_2_train_images_dicom_headers.csv.gz",
        ",BodyPartExamined,ConversionType,Filename,InstanceNumber,Modality,PatientAge,PatientID,PatientOrientation,"
        "PatientSex,PixelSpacing,SamplesPerPixel,SeriesNumber,ViewPosition",
        "0,CHEST,WSD,x.dcm,1.0,CR,43,00436515,,F,0.168,1.0,1.0,AP",
        "1,CHEST,WSD,y.dcm,1.0,CR,155,00313ee0,,M,0.143,1.0,1.0,PA",
    )


def siim(root: Path) -> None:
    """Film b has two rows; film c's code starts with 1,025 skipped pixels, so in the second column."""
    write(
        root / "train-rle.csv",
        "ImageId, EncodedPixels",
        "a, -1",
        "b,0 2 1022 3",
        "b,1 2",
        "c, 1025 2 1022 1",
        "d,-1",
    )


def brax(root: Path) -> None:
    header = "DicomPath,PngPath,PatientID,PatientSex,PatientAge,AccessionNumber,StudyDate,ViewPosition,Rows,Columns,"
    film = "images/id_{0}/Study_1/Series_1/image-{0}.png"
    labels = {"a": "1.0" + "," * 13, "b": ",,-1.0" + "," * 11}
    write(
        root / "master_spreadsheet_update.csv",
        header + "Manufacturer," + ",".join(CHEXPERT.names),
        f"x.dcm,{film.format('a')},p1,F,85 or more,77,2010,AP,100,100,M,{labels['a']}",
        f"y.dcm,{film.format('b')},p2,M,45,77,2010,L,100,100,M,{labels['b']}",
        f"z.dcm,{film.format('c')},p2,M,45,78,2010,PA,100,100,M,{labels['a']}",
    )


def taix(root: Path) -> None:
    write(
        root / "annotation.csv",
        TAIX_HEADER,
        "u1,p1,d1,2015,21915,M,3,0,1,2,0,4,0,",
        "u2,p2,d1,2015,36500,F,1,2,0,0,0,0,0,0",
        "u3,p3,d1,2015,,O,0,0,0,0,0,0,1,3",
    )
    folds = ["u1,0,train", "u3,0,test", "u2,0,val", "u1,1,test", "u3,1,val", "u2,1,train"]
    write(root / "split.csv", "UID,Fold,Split", *folds)


def hannover(root: Path) -> None:
    header = (
        "patient_id,image_id,sex,age,size,weight,admission_offset,icu_admission_offset,icu_release_offset,death_offset,"
        "modality,projection,crp_offset"
    )
    write(
        root / "data.csv",
        header,
        "p1,i1,f,,,,0,,,,CR,pa,",
        "p2,i2,m,55,,,0,0.0,4.0,,CR,ap,",
        "p2,i3,m,55,,,0,-2.0,2.0,,DX,ap,",
    )
